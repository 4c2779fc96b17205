// Buttons that start server actions, and values that can be copied.

import { h } from "../lib/dom.js";
import { toast, toastError } from "./toast.js";

const CONFIRM_MILLISECONDS = 6000;

/**
 * A button that is disabled while `work` runs; errors are shown as a toast. With `confirm`, the first click changes the
 * title to `confirm` and a second click starts the work; a double click does not.
 */
export function actionButton(title, work, { kind = "", confirm, label } = {}) {
  const button = h("button", { type: "button", class: kind, "aria-label": label, onclick: press }, title);
  let isConfirmed = !confirm;
  let timer;
  function askToConfirm() {
    isConfirmed = true;
    button.textContent = confirm;
    timer = setTimeout(reset, CONFIRM_MILLISECONDS);
  }
  function reset() {
    clearTimeout(timer);
    isConfirmed = !confirm;
    button.textContent = title;
  }
  async function press(event) {
    if (confirm && event.detail > 1) return;
    if (!isConfirmed) {
      askToConfirm();
      return;
    }
    clearTimeout(timer);
    button.disabled = true;
    try {
      await work();
    } catch (error) {
      toastError(error);
    } finally {
      button.disabled = false;
      reset();
    }
  }
  return button;
}

/** A value with a button that copies it; where the browser does not allow that, the button selects it. */
export function copyable(text) {
  const value = h("code", {}, text);
  async function copy() {
    try {
      await navigator.clipboard.writeText(text); // the clipboard exists over HTTPS and on localhost only
      toast("Copied.");
    } catch {
      getSelection().selectAllChildren(value);
      toast("This browser does not allow copying here. The text is selected: copy it with the keyboard.");
    }
  }
  const button = h(
    "button",
    { type: "button", class: "quiet small copy", title: `Copy ${text}`, onclick: copy },
    "Copy",
  );
  return h("span", { class: "copyable" }, value, button);
}
