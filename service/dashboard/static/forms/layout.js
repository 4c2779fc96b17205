// The parts of a form's layout.

import { actionButton } from "../components/buttons.js";
import { spacer } from "../components/layout.js";
import { h } from "../lib/dom.js";

/** Fields side by side. */
export const fieldGrid = (fields) =>
  h(
    "div",
    { class: "fields" },
    fields.map((field) => field.element),
  );

/** Elements below each other, with less space than between the parts of a page. */
export const stack = (...children) => h("div", { class: "choice" }, children);

/** The head of one of several similar cards: its title, and a button that removes the card. */
export const cardHead = (title, remove) =>
  h(
    "div",
    { class: "row" },
    title,
    spacer(),
    actionButton("Remove", async () => remove(), { kind: "quiet small" }),
  );
