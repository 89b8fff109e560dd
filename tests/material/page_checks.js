// To be evaluated in a page, where it leaves three functions.
// Each returns what is wrong with the page on screen, element by element: nothing, where nothing is.

const visible = (selector) => [...document.querySelectorAll(selector)].filter((element) => element.checkVisibility());
const cite = (element) => element.outerHTML.slice(0, 80);

/** Return texts that stand out too little from what is behind them (WCAG 2.2, 1.4.3: at least 4.5:1). */
function findFaintText() {
  const parse = (colour) => colour.match(/[\d.]+/g).map(Number);
  const linear = (part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  const luminance = ([red, green, blue]) =>
    0.2126 * linear(red / 255) + 0.7152 * linear(green / 255) + 0.0722 * linear(blue / 255);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const contrast = (element) => {
    const both = [parse(getComputedStyle(element).color), behind(element)].map(luminance);
    return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
  };
  const hasText = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  const shown = visible("body *").filter(hasText);
  if (!shown.length) return ["there is no text"];
  return shown.filter((element) => !(contrast(element) >= 4.5)).map((element) => [cite(element), contrast(element)]);
}

/** Return controls without a label, groups without a legend, screens without a heading that names them. */
function findNameless() {
  const nameOf = (element) => {
    const pointed = document.getElementById(element.getAttribute("aria-labelledby") ?? "");
    if (pointed) return pointed.textContent;
    if (element.tagName === "BUTTON") return element.textContent;
    if (element.tagName === "FIELDSET") return element.querySelector("legend").textContent;
    return element.labels?.[0]?.textContent ?? "";
  };
  const named = "input, textarea, button, fieldset, progress, section, dialog";
  return visible(named).filter((element) => !nameOf(element).trim()).map(cite);
}

/** Return what is to be hit with a finger and smaller than 44 pixels either way (WCAG 2.2, 2.5.5). */
function findSmallTargets() {
  return visible("button, input[type=text], textarea, label:has(input), h3 label")
    .map((element) => [cite(element), element.getBoundingClientRect()])
    .filter(([, { width, height }]) => width < 44 || height < 44)
    .map(([html, { width, height }]) => [html, width, height]);
}
