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

  /** Return the colour of a mark that stands for a series, empty for axes, grids and chance lines. */
  function seriesOf(mark) {
    const paint = [mark.getAttribute("stroke"), mark.getAttribute("fill")];
    const isSeries = (value) => value && value.startsWith("var(--") && !/--(rule|ink|ink-2|panel)\)/.test(value);
    return paint.find(isSeries) || "";
  }

  // A method or person stands out over all panels of a figure while it is pointed at, or chosen in the legend.
  function emphasiseSeries() {
    for (const figure of document.querySelectorAll("figure")) {
      const marks = [...figure.querySelectorAll("svg [stroke], svg [fill]")].filter((mark) => seriesOf(mark));
      if (new Set(marks.map(seriesOf)).size < 2) continue;
      let chosen = "";
      const show = (colour) => {
        for (const mark of marks) mark.classList.toggle("dim", colour !== "" && seriesOf(mark) !== colour);
      };
      figure.addEventListener("pointerover", (event) => {
        const mark = event.target instanceof Element ? event.target.closest("svg [data-tip]") : null;
        show(mark ? seriesOf(mark) : chosen);
      });
      figure.addEventListener("pointerleave", () => show(chosen));
      for (const entry of figure.querySelectorAll(".legend [data-colour]")) {
        const button = make("button", "entry-button");
        button.type = "button";
        button.setAttribute("aria-pressed", "false");
        button.append(...entry.childNodes);
        button.addEventListener("click", () => {
          chosen = chosen === entry.dataset.colour ? "" : entry.dataset.colour;
          for (const other of figure.querySelectorAll(".entry-button")) {
            other.setAttribute("aria-pressed", String(other === button && chosen !== ""));
          }
          show(chosen);
        });
        entry.append(button);
      }
    }
  }

  // Panels of several group sizes: one size at a time, or all.
  function chooseGroupSizes() {
    for (const figure of document.querySelectorAll("figure")) {
      const panels = [...figure.querySelectorAll(".panel[data-k]")];
      const sizes = [...new Set(panels.map((panel) => panel.dataset.k))];
      if (sizes.length < 2) continue;
      const label = make("label", "choose-k", "Groups of k = ");
      const select = make("select");
      select.append(make("option", "", "all sizes"), ...sizes.map((size) => make("option", "", size)));
      select.options[0].value = "";
      select.addEventListener("change", () => {
        for (const panel of panels) panel.hidden = select.value !== "" && panel.dataset.k !== select.value;
      });
      label.append(select);
      figure.querySelector(".panels").before(label);
      // Paper shows all of them.
      window.addEventListener("beforeprint", () => { for (const panel of panels) panel.hidden = false; });
      window.addEventListener("afterprint", () => select.dispatchEvent(new Event("change")));
    }
  }

  /** Return one CSV field. Numbers are written plainly; text that a spreadsheet would run as a formula is quoted. */
  function writeField(text) {
    const number = text.replace("\u2212", "-").replaceAll(",", "");
    if (/^[+-]?(\d+\.?\d*|\.\d+)$/.test(number)) return number.replace(/^\+/, "").replace(/^(-?)\./, (_, sign) => `${sign}0.`);
    const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  }

  /** Return a table's rows as CSV; what stands small below a cell's figure has a column of its own. */
  function writeCsv(table) {
    const split = (cell) => {
      const notes = [...cell.querySelectorAll(".note")].map((note) => note.textContent.trim());
      const copy = cell.cloneNode(true);
      for (const note of copy.querySelectorAll(".note")) note.remove();
      return [copy.textContent.trim(), notes.join("; ").replaceAll("\u00a0", " ")];
    };
    const heads = [...table.tHead.rows[0].cells].map((cell) => cell.textContent.trim());
    const rows = [];
    for (const body of table.tBodies) {
      const title = body.querySelector("tr.group");
      const group = title ? title.querySelector(".group-text").firstChild.textContent.trim() : "";
      for (const row of body.rows) if (row !== title) rows.push({ group, cells: [...row.cells].map(split) });
    }
    const hasGroups = rows.some((row) => row.group);
    const noted = heads.map((_, i) => rows.some((row) => row.cells[i] && row.cells[i][1]));
    const line = (group, cells) => [...(hasGroups ? [group] : []),
      ...cells.flatMap(([text, note], i) => (noted[i] ? [text, note] : [text]))].map(writeField).join(",");
    const head = line("Group", heads.map((title) => [title, `${title}: detail`]));
    return `${[head, ...rows.map((row) => line(row.group, row.cells))].join("\r\n")}\r\n`;
  }

  /** Save text as a file of the reader's own. */
  function saveFile(name, text) {
    const link = make("a");
    link.href = URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv;charset=utf-8" }));
    link.download = name;
    link.click();
    URL.revokeObjectURL(link.href);
  }

  function nameFile(title) {
    return `${title.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "").slice(0, 60) || "table"}.csv`;
  }

  /** Return a button that saves a file; its text is made when it is pressed. */
  function makeSaver(text, label, name, write) {
    const button = make("button", "save", text);
    button.type = "button";
    button.setAttribute("aria-label", label);
    button.addEventListener("click", () => saveFile(name, write()));
    return button;
  }

  function offerDownloads() {
    for (const table of document.querySelectorAll(".scroll > table")) {
      const title = table.caption.textContent.trim();
      table.caption.firstElementChild.append(makeSaver("CSV", `Save as CSV: ${title}`, nameFile(title), () => writeCsv(table)));
    }
    const source = document.getElementById("full-tables");
    const place = document.getElementById("full-tables-offer");
    if (!source || !place) return;
    for (const [name, text] of Object.entries(JSON.parse(source.textContent))) {
      place.append(makeSaver(name, `Save ${name}`, name, () => text));
    }
    place.hidden = false;
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
  emphasiseSeries();
  chooseGroupSizes();
  offerDownloads();
  unfoldForPrint();
  const source = document.getElementById("example-data");
  const content = source ? JSON.parse(source.textContent) : null;
  if (content) showExamples();
})();
