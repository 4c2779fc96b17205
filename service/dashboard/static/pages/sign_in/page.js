// Sign in: ask for the API key, which this browser then stores.

import { actions } from "../../components/layout.js";
import { call } from "../../lib/api.js";
import { storeApiKey } from "../../lib/api_key.js";
import { fill, h } from "../../lib/dom.js";

const PRINTABLE = /^[\x21-\x7e]+$/;

/** Show the form until a key is accepted; `onSignIn` then gets the user. `message` says why a key is needed again. */
export function signIn(root, { onSignIn, message }) {
  const view = signInView(message, submit);
  async function submit(event) {
    event.preventDefault();
    const key = view.input.value.trim();
    if (!PRINTABLE.test(key)) {
      fill(view.error, "A key consists of letters, digits and punctuation, without spaces.");
      return;
    }
    view.button.disabled = true;
    try {
      const user = await userOf(key);
      storeApiKey(key); // only after it was accepted
      onSignIn(user);
    } catch (error) {
      fill(
        view.error,
        error.status === 401 ? "Unknown key. Check that it was copied completely." : `${error.message}.`,
      );
      view.input.setAttribute("aria-invalid", "true");
      view.input.focus();
    } finally {
      view.button.disabled = false;
    }
  }
  fill(root, view.form);
  document.title = "Sign in \u00b7 kotrain";
  view.input.focus();
}

async function userOf(key) {
  const answer = await call("GET", "/v1/me", { headers: { Authorization: `Bearer ${key}` } });
  return answer.json();
}

function signInView(message, onsubmit) {
  const input = h("input", {
    id: "key",
    type: "password",
    autocomplete: "current-password",
    spellcheck: "false",
    required: true,
    placeholder: "kt_\u2026",
    "aria-describedby": "key-help key-error",
  });
  const error = h("p", { class: "error wrong", id: "key-error", role: "alert" }, message);
  const button = h("button", { class: "primary", type: "submit" }, "Sign in");
  const help = [
    "If you started kotrain: ",
    h("code", {}, "kotrain up"),
    " prints the path of the file that contains your key. Otherwise ask an administrator for one (",
    h("code", {}, "kotrain key NAME"),
    "). The key is stored in this browser and sent to this server only.",
  ];
  const form = h(
    "form",
    { class: "part signin", onsubmit },
    h("h1", {}, "Sign in to kotrain"),
    h(
      "p",
      {},
      "Compare optimizers on this server: submit training runs, watch them live, and get a statistical verdict.",
    ),
    h("div", { class: "field" }, h("label", { for: "key" }, "API key"), input, error),
    h("p", { class: "note", id: "key-help" }, help),
    actions(button),
  );
  return { form, input, error, button };
}
