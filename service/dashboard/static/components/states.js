// Placeholders for the content of a page or of a part of it.

import { h } from "../lib/dom.js";

/** A spinner while content is fetched. Its appearance is delayed, so that fast answers do not flicker. */
export const loading = () =>
  h(
    "div",
    { class: "waiting", role: "status" },
    h("span", { class: "spinner", "aria-hidden": "true" }),
    "Loading \u2026",
  );

const actionRow = (actions) => actions.length > 0 && h("p", { class: "actions" }, actions);

/** An error in the place of a page: title, reason and possible actions. */
export const errorState = (title, reason, ...actions) =>
  h(
    "section",
    { class: "problem", role: "alert" },
    h("h1", {}, title),
    reason && h("p", {}, reason),
    actionRow(actions),
  );

/** A part of a page without content: the reason, and actions that create content. */
export const emptyState = (title, text, ...actions) =>
  h("div", { class: "empty" }, h("p", { class: "lead" }, title), text && h("p", {}, text), actionRow(actions));

/** Text in the place of missing data. */
export const note = (text) => h("p", { class: "note" }, text);

/** An error message in the place of content. */
export const errorText = (text) => h("p", { class: "wrong" }, text);

/** Warnings of a plan or a request, one per line. */
export const warningTexts = (warnings) => warnings.map((text) => h("p", { class: "warned" }, `Warning: ${text}`));

/** An element that shows `view(answer)` once `promise` resolves, and the error otherwise. */
export function loaded(promise, view) {
  const element = h("div", {}, "Loading \u2026");
  promise
    .then((answer) => element.replaceChildren(view(answer)))
    .catch((error) => error.name === "AbortError" || element.replaceChildren(errorText(error.message)));
  return element;
}
