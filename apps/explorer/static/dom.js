// Elements without markup in strings: what a node says is text, never HTML.

const SVG = "http://www.w3.org/2000/svg";

export const h = (tag, attributes, ...children) =>
  build(document.createElement(tag), attributes, children);

export const svg = (tag, attributes, ...children) =>
  build(document.createElementNS(SVG, tag), attributes, children);

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...flat(children));
  return node;
}

// What is null is left out, so that a part may be missing where it stands.
const flat = (children) =>
  children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);

export function replace(node, ...children) {
  node.replaceChildren(...flat(children));
}

const HOVERS = matchMedia("(hover: hover)");

// Replaces what comes anew all the time, unless somebody points at it or has the focus in it: then it stands still, so
// that a link stays where it is, and style.css says so.
export function refresh(node, ...children) {
  const isHeld = node.matches(":focus-within") || (HOVERS.matches && node.matches(":hover"));
  node.classList.toggle("held", isHeld);
  if (!isHeld) replace(node, ...children);
}

export function title(text) {
  document.title = `${text} · Crypto-Trading Token`;
}

export function announce(text) {
  document.getElementById("announcer").textContent = text;
}

export const card = (heading, ...children) =>
  h("section", { class: "card" }, heading === null ? null : h("h2", null, heading), children);

// Name and value pairs; a pair whose value is null is left out.
export const facts = (...pairs) =>
  h(
    "dl",
    { class: "facts" },
    pairs
      .filter(([, value]) => value !== null && value !== undefined)
      .map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value))),
  );

// Columns are names; one that begins with ">" has numbers, aligned right.
export const table = (caption, columns, rows) =>
  h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h(
      "table",
      { class: "list" },
      h("caption", { class: "unseen" }, caption),
      h(
        "thead",
        null,
        h(
          "tr",
          null,
          columns.map((name) =>
            h("th", { scope: "col", class: name.startsWith(">") ? "number" : null }, name.replace(/^>/, "")),
          ),
        ),
      ),
      h("tbody", null, rows),
    ),
  );

export const row = (columns, cells, attributes) =>
  h(
    "tr",
    attributes,
    cells.map((cell, at) => h("td", { class: columns[at].startsWith(">") ? "number" : null }, cell)),
  );

export const tag = (kind, text) => h("span", { class: `tag ${kind}` }, text);

export const notice = (text, kind = "") => h("p", { class: `notice ${kind}`, role: "alert" }, text);
