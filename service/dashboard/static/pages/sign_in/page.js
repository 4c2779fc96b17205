// The key is asked for once, and kept by this browser alone.

import { call, keepKey } from "../../lib/api.js";
import { fill, h } from "../../lib/dom.js";

/** Ask for a key until one is right; `why` says why again. */
export function askForKey(main, { onKnown, why }) {
  const field = h("input", {
    id: "key",
    type: "password",
    autocomplete: "current-password",
    spellcheck: "false",
    required: true,
    placeholder: "kt_\u2026",
    "aria-describedby": "key-help key-error",
  });
  const error = h("p", { class: "error wrong", id: "key-error", role: "alert" }, why);
  const button = h("button", { class: "primary", type: "submit" }, "Open the dashboard");
  const form = h(
    "form",
    { class: "part signin", onsubmit: tryIt },
    h("h1", {}, "Welcome to kotrain"),
    h(
      "p",
      {},
      "Compare optimizers on this server: submit runs, watch them, and see which optimizer wins and how sure one can be.",
    ),
    h("div", { class: "field" }, h("label", { for: "key" }, "Your API key"), field, error),
    h(
      "p",
      { class: "note", id: "key-help" },
      "Who started kotrain finds it in the file that ",
      h("code", {}, "kotrain up"),
      " named; others get one from an administrator (",
      h("code", {}, "kotrain key NAME"),
      "). It stays in this browser and is sent to this server only.",
    ),
    h("div", { class: "actions" }, button),
  );
  async function tryIt(event) {
    event.preventDefault();
    const given = field.value.trim();
    if (!/^[\x21-\x7e]+$/.test(given)) {
      fill(error, "A key has letters, digits and signs only, and no spaces.");
      return;
    }
    button.disabled = true;
    try {
      const answer = await call("GET", "/v1/me", { headers: { Authorization: `Bearer ${given}` } });
      const found = await answer.json();
      keepKey(given); // not before it is known here
      onKnown(found);
    } catch (problem) {
      fill(
        error,
        problem.status === 401
          ? "This key is not known here. Check that all of it was copied."
          : `${problem.message}. Try again in a moment.`,
      );
      field.setAttribute("aria-invalid", "true");
      field.focus();
    } finally {
      button.disabled = false;
    }
  }
  fill(main, form);
  document.title = "Sign in \u00b7 kotrain";
  field.focus();
}
