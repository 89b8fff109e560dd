"use strict";
(() => {
  const STEP = 6;

  /** Return a new element; text goes in as text, so that nothing in the data becomes markup. */
  function make(tag, className, text) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined && text !== null) element.textContent = text;
    return element;
  }

  // Tips on the dots of the drawings. The same figures stand in the tables for those who do not point.
  function showTips() {
    const tip = document.getElementById("tip");
    const hide = () => { tip.hidden = true; };
    document.addEventListener("pointerover", (event) => {
      const dot = event.target instanceof Element ? event.target.closest("[data-tip]") : null;
      if (!dot) { hide(); return; }
      tip.textContent = dot.getAttribute("data-tip");
      tip.hidden = false;
      const at = dot.getBoundingClientRect();
      const size = tip.getBoundingClientRect();
      const left = Math.min(Math.max(8, at.left + at.width / 2 - size.width / 2), window.innerWidth - size.width - 8);
      const above = at.top - size.height - 8;
      tip.style.left = `${left}px`;
      tip.style.top = `${above > 0 ? above : at.bottom + 8}px`;
    });
    document.addEventListener("scroll", hide, { passive: true });
  }

  // Folded tables belong on paper too.
  function unfoldForPrint() {
    let opened = [];
    window.addEventListener("beforeprint", () => {
      opened = [...document.querySelectorAll("details:not([open])")];
      for (const fold of opened) fold.open = true;
    });
    window.addEventListener("afterprint", () => { for (const fold of opened) fold.open = false; });
  }

  /** Return one response or annotation: how it came about, its label, its explanation or why there is none. */
  function makeEntry(how, label, explanation, ownLabels, response) {
    const entry = make("div", "entry");
    if (how) entry.append(make("span", "how", how));
    if (label !== null) {
      const same = ownLabels !== null && ownLabels.has(label);
      const chip = make("span", same ? "label label-same" : "label", same ? `${label} ✓` : label);
      if (ownLabels !== null) chip.title = same ? "the person's label" : "not the person's label";
      entry.append(chip);
    }
    if (response && response.status) {
      const reason = content.statuses[response.status] || response.status;
      entry.append(" ", make("span", "unread", `could not be read: ${reason}`));
      entry.append(make("p", "", response.text));
    } else {
      entry.append(make("p", "", explanation.trim()));
    }
    if (response && response.cut) entry.append(make("span", "cut", "cut at the token limit"));
    return entry;
  }

  /** Return a row: who wrote, then a column per decision. */
  function makeRow(title, style, columns) {
    const row = make("div", `row row-${style}`);
    row.append(make("h4", "", title));
    for (const entries of columns) {
      const column = make("div", "column");
      column.append(...entries);
      row.append(column);
    }
    return row;
  }

  /** Return a person's annotations of an item. */
  function writtenBy(item, person) {
    return Object.hasOwn(item.human, person) ? item.human[person] : [];
  }

  /** Return the responses of one example: those in the person's place and those that imitate nobody. */
  function responsesOf(example) {
    return example.item.made.filter((response) => response.p === null || response.p === example.person);
  }

  /** Return the card of one item and person. */
  function makeCard(example) {
    const { item, person } = example;
    const card = make("article", "example");
    const heading = make("h3", "", person);
    heading.append(make("span", "note", item.id));
    const texts = make("dl", "texts");
    item.texts.forEach((text, i) => texts.append(make("dt", "", content.names[i]), make("dd", "", text ?? "not in the corpus")));
    const written = writtenBy(item, person);
    const ownLabels = new Set(written.map(([label]) => label));
    const own = written.map(([label, explanation]) => makeEntry("", label, explanation, null, null));
    const rows = make("div", "rows");
    rows.append(makeRow(`${person} wrote`, "human", [own.length ? own : [make("p", "absent", "nothing on this item")]]));
    for (const method of content.methods) {
      const made = responsesOf(example).filter((response) => response.m === method.id);
      if (!made.length) continue;
      const title = method.title + (made.every((response) => response.p === null) ? " (imitates nobody)" : "");
      const columns = content.decisions.map((decision) => made.filter((response) => response.d === decision).map(
        (response) => makeEntry(response.d + (content.manySeeds ? `, seed ${response.s}` : ""),
          response.l, response.e, written.length ? ownLabels : null, response)));
      rows.append(makeRow(title, method.style, columns));
    }
    card.append(heading, texts, rows);
    return card;
  }

  /** Return every (item, person) with something to show, the text to search in beside it. */
  function listExamples() {
    return content.items.flatMap((item) => {
      const people = [...new Set([...Object.keys(item.human), ...item.made.map((response) => response.p)])];
      return people.filter((person) => person !== null).sort().map((person) => {
        const example = { item, person };
        const written = writtenBy(item, person).flat();
        const made = responsesOf(example).map((response) => response.text || response.e);
        example.text = [...item.texts, ...written, ...made].join("\n").toLowerCase();
        return example;
      });
    });
  }

  /** Return whether an example is of the kind chosen. */
  function isOfKind(example, kind) {
    const responses = responsesOf(example);
    if (kind === "unread") return responses.some((response) => response.status);
    if (kind !== "other-label") return true;
    const own = new Set(writtenBy(example.item, example.person).map(([label]) => label));
    return own.size > 0 && responses.some((response) => response.l !== null && !own.has(response.l));
  }

  function showExamples() {
    const find = (id) => document.getElementById(id);
    const [person, item, text, kind] = ["person", "item", "text", "kind"].map((name) => find(`filter-${name}`));
    const [list, more, count] = [find("example-list"), find("example-more"), find("example-count")];
    const examples = listExamples();
    for (const { id, texts } of content.items) {
      const words = texts[1] || texts[0] || "";
      const option = make("option", "", `${words.slice(0, 60)}${words.length > 60 ? "…" : ""} (${id.slice(0, 6)})`);
      option.value = id;
      item.append(option);
    }
    let chosen = [];
    let shown = 0;
    const showMore = () => {
      list.append(...chosen.slice(shown, shown + STEP).map(makeCard));
      shown = Math.min(shown + STEP, chosen.length);
      more.hidden = shown >= chosen.length;
      count.textContent = `${shown} of ${chosen.length} examples shown (${examples.length} in all).`;
    };
    const choose = () => {
      const wanted = text.value.trim().toLowerCase();
      chosen = examples.filter((example) => (!person.value || example.person === person.value)
        && (!item.value || example.item.id === item.value)
        && (!wanted || example.text.includes(wanted)) && isOfKind(example, kind.value));
      list.replaceChildren();
      shown = 0;
      showMore();
    };
    for (const control of [person, item, kind]) control.addEventListener("change", choose);
    text.addEventListener("input", choose);
    more.addEventListener("click", () => {
      const first = shown;
      showMore();
      const card = list.children[first];
      if (card) { card.tabIndex = -1; card.focus({ preventScroll: true }); }
    });
    document.querySelector(".filter").hidden = false;
    choose();
  }

  showTips();
  unfoldForPrint();
  const source = document.getElementById("example-data");
  const content = source ? JSON.parse(source.textContent) : null;
  if (content) showExamples();
})();
