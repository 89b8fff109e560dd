"use strict";
// What a task looks like.

/** Return a new element; text goes in as text, so that nothing in the data becomes markup. */
function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

/** Return the parts of a text of several items, "[1] …" to "[n] …" on lines of their own; null if it is not that. */
function splitNumbered(text, n) {
  const starts = [...text.matchAll(/^\[(\d+)\] /gm)];
  if (n < 2 || starts.length !== n || starts[0].index !== 0) return null;
  if (starts.some((start, i) => start[1] !== String(i + 1))) return null;
  return starts.map((start, i) => text.slice(start.index + start[0].length, starts[i + 1]?.index).replace(/\n$/, ""));
}

/** Return the two texts of an item under their names. */
function makeTexts(names, texts) {
  const list = make("dl", "texts");
  texts.forEach((text, i) => {
    const shown = make("dd", "", text);
    shown.dir = "auto";
    list.append(make("dt", "", names[i]), shown);
  });
  return list;
}

/** Return the explanations to attribute, each below the texts it is about. */
function makeItems(names, task) {
  const n = task.explanations.length;
  const parts = task.texts.map((text) => splitNumbered(text, n));
  const paired = parts.every((part) => part !== null);
  const items = task.explanations.map((explanation, i) => {
    const item = make("article", "item");
    if (n > 1) item.append(make("p", "number", `${i + 1} of ${n}`));
    if (paired) item.append(makeTexts(names, parts.map((part) => part[i])));
    if (n === 1) item.append(makeTexts(names, task.texts));
    const quote = make("blockquote", "explanation", explanation);
    quote.dir = "auto";
    item.append(quote);
    return item;
  });
  if (paired || n === 1) return items;
  const apart = make("article", "item");
  apart.append(makeTexts(names, task.texts));
  return [apart, ...items];
}

/** Return the card of a person; its heading is a second label of the choice. */
function makePerson({ letter, examples }) {
  const person = make("article", "person");
  person.dataset.letter = letter;
  const heading = make("h3");
  const label = make("label", "", `Person ${letter}`);
  label.htmlFor = `answer-${letter}`;
  heading.append(label);
  person.append(heading, ...examples.map((example) => {
    const quote = make("blockquote", "", example);
    quote.dir = "auto";
    return quote;
  }));
  return person;
}

/** Return a choice: `value` is a letter, or empty for "cannot say". */
function makeOption(value, text, name, choose) {
  const option = make("label", "option");
  const radio = make("input");
  Object.assign(radio, { type: "radio", name: "answer", value, id: `answer-${value || "none"}` });
  radio.setAttribute("aria-label", name);
  radio.setAttribute("aria-keyshortcuts", value || "0");
  radio.addEventListener("change", () => choose(value));
  option.append(radio, make("span", "", text));
  return option;
}
