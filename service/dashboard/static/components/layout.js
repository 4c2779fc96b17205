// The parts of a page's layout.

import { h, uniqueId } from "../lib/dom.js";
import { timestamp } from "../lib/format.js";

/** The head of a page: title, elements beside it, and a subtitle `sub`. */
export const pageHead = (title, { sub } = {}, ...children) =>
  h("div", { class: "head" }, h("h1", {}, title), children, sub && h("p", { class: "sub" }, sub));

/** Aligns the following elements of a row to the right. */
export const spacer = () => h("span", { class: "space" });

/** A link that looks like a button. */
export const linkButton = (title, href, kind = "") => h("a", { class: `button ${kind}`.trim(), href }, title);

/** A row of buttons. */
export const actions = (...children) => h("div", { class: "actions" }, children);

/** A part of a page with a heading. */
export function section(title, ...children) {
  const id = uniqueId("section");
  return h("section", { class: "part", "aria-labelledby": id }, h("h2", { id }, title), children);
}

/** Content that is rarely needed, folded behind its title. */
export const folded = (title, ...content) => h("details", {}, h("summary", {}, title), content);

/** Pairs of name and value; missing values are omitted. */
export function facts(pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return h(
    "dl",
    { class: "facts" },
    known.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
  );
}

/** A tile of `numbers`: the name of a number, its value in large print, and a small remark. */
export const numberTile = (name, value, remark, more) =>
  h("div", {}, h("dt", {}, name), h("dd", {}, value, remark && h("small", {}, ` ${remark}`), more));

/** Large numbers side by side. */
export const numbers = (...tiles) => h("dl", { class: "numbers" }, tiles);

/** A value as indented JSON; a string as it is. */
export const code = (value) =>
  h(
    "pre",
    { class: "code", tabindex: "0" },
    h("code", {}, typeof value === "string" ? value : JSON.stringify(value, null, 2)),
  );

/** A timestamp relative to now, with the exact time as a tooltip. */
export const time = (at, text) => h("time", { datetime: at, title: timestamp(at) }, text);
