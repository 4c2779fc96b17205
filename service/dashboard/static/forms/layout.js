// What the pages with large forms share.

import { h } from "../lib/dom.js";
import { below } from "./fields.js";
import { action } from "../components/parts.js";

/** The fields of a group, side by side. */
export const fieldGrid = (fields) =>
  h(
    "div",
    { class: "fields" },
    fields.map((one) => one.element),
  );

/** What is rarely needed, folded in. */
export const folded = (title, ...content) => h("details", {}, h("summary", {}, title), content);

/** The head of one of several like things: its title, which may change, and a way to take it out. */
export const cardHead = (title, remove) =>
  h(
    "div",
    { class: "row" },
    title,
    h("span", { class: "space" }),
    action("Remove", async () => remove(), { kind: "quiet small" }),
  );

/** Show each error at the part that it is about, by the part's name; answers those that are no part's. */
export function refuseParts(parts, errors) {
  let left = errors;
  for (const [name, part] of Object.entries(parts)) {
    const own = below(left, `/${name}`);
    left = left.filter((error) => error.pointer !== `/${name}` && !error.pointer.startsWith(`/${name}/`));
    left = left.concat(part.refuse(own).map((error) => ({ ...error, pointer: `/${name}${error.pointer}` })));
  }
  return left;
}

/** What stands in the place of the plan where the API refuses the form, or does not answer. */
export function refusal(error) {
  const fields = error.fields ?? [];
  const which = fields.length === 1 ? "One field needs" : `${fields.length} fields need`;
  return [
    h("h2", {}, error.status === 422 ? "Not yet" : "Could not be checked"),
    h("p", { class: "wrong" }, fields.length ? `${which} another value:` : error.message),
    fields.length > 0 &&
      h(
        "ul",
        {},
        fields.map((one) => h("li", {}, h("code", {}, one.pointer), ` ${one.detail}`)),
      ),
  ];
}

/** The entries that have a value. */
export const kept = (found) => Object.fromEntries(Object.entries(found).filter(([, value]) => value !== undefined));

/** What an address holds as a JSON object; `usual` where it holds none. */
export function parsed(text, usual) {
  try {
    const found = JSON.parse(text);
    return found !== null && typeof found === "object" ? found : usual;
  } catch {
    return usual;
  }
}
