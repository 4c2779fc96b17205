// Short messages in the corner of the page.

import { h } from "../lib/dom.js";

const NOTE_MILLISECONDS = 6000;
const ERROR_MILLISECONDS = 15_000;

/** Show a message for some seconds; `kind` is "note" or "error". */
export function toast(text, kind = "note") {
  const box = h(
    "div",
    { class: `toast ${kind}` },
    h("span", {}, text),
    h("button", { type: "button", class: "quiet small", "aria-label": "Close", onclick: () => box.remove() }, "\u2715"),
  );
  document.getElementById("toasts").append(box);
  setTimeout(() => box.remove(), kind === "error" ? ERROR_MILLISECONDS : NOTE_MILLISECONDS);
}

/** Show an error's message, unless the request was aborted because its page was left. */
export function toastError(error) {
  if (error.name !== "AbortError") toast(error.message, "error");
}
