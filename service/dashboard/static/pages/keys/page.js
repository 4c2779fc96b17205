// API keys: whose there are, new ones, and taking them back.

import { get, post, remove } from "../../lib/api.js";
import { fill, h } from "../../lib/dom.js";
import { ago } from "../../lib/format.js";
import { textField } from "../../forms/fields.js";
import { action, copyable, section, table, toast } from "../../components/parts.js";

export async function mount(root, { user, signal }) {
  const list = h("div", { class: "part" });
  const fresh = h("div");

  async function load() {
    const { keys } = await get("/v1/keys", {}, signal);
    fill(
      list,
      table({
        label: "Keys",
        columns: [
          {
            title: "User",
            kind: "head",
            cell: (key) => [key.user, key.is_admin && h("span", { class: "why" }, " admin")],
          },
          {
            title: "Fingerprint",
            kind: "text",
            hint: "The first digits of the key's SHA-256; the key itself is not stored",
            cell: (key) => h("code", {}, key.fingerprint),
          },
          {
            title: "Made",
            kind: "text",
            cell: (key) => h("time", { datetime: key.created_at, title: key.created_at }, ago(key.created_at)),
          },
          {
            title: "",
            cell: (key) =>
              key.is_used
                ? h("span", { class: "why" }, "in use here")
                : action("Take back", () => takeBack(key), {
                    kind: "small danger",
                    confirm: "Really?",
                    label: `Take back the key ${key.fingerprint} of ${key.user}`,
                  }),
          },
        ],
        rows: keys,
        rowKey: (key) => key.id,
      }),
    );
  }

  async function takeBack(key) {
    await remove(`/v1/keys/${key.id}`);
    toast(`The key ${key.fingerprint} of ${key.user} works no longer.`);
    await load();
  }

  const name = textField("user", "User", {
    help: "Letters, digits, spaces and signs of _.:/@+=-; is made if need be.",
    placeholder: "ada",
  });
  const isAdmin = h("input", { type: "checkbox", id: "key-admin" });
  const button = h("button", { class: "primary", type: "submit" }, "Make a key");
  async function make(event) {
    event.preventDefault();
    name.refuse(null);
    button.disabled = true; // a second click would make a second key, and only one is shown
    try {
      const made = await post("/v1/keys", { user: name.value() ?? "", admin: isAdmin.checked });
      fill(
        fresh,
        h(
          "div",
          { class: "verdict", role: "status" },
          h("p", {}, h("b", {}, `The key of ${made.user}`), copyable(made.key)),
          h("p", { class: "note" }, "It is shown this once: hand it over now."),
        ),
      );
      event.target.reset();
      await load();
    } catch (error) {
      name.refuse(error.fields?.length ? error.fields[0].detail : error.message);
      name.control.focus();
    } finally {
      button.disabled = false;
    }
  }

  await load(); // before the form below it, which would move otherwise
  fill(
    root,
    h(
      "div",
      { class: "head" },
      h("h1", {}, "Keys"),
      h(
        "p",
        { class: "sub" },
        user.is_admin
          ? "Who may use this kotrain. A key is a password: one for each person or program."
          : "Your keys. An administrator makes new ones.",
      ),
    ),
    fresh,
    list,
    user.is_admin &&
      section(
        "A new key",
        h(
          "form",
          { onsubmit: make, novalidate: true },
          h(
            "div",
            { class: "fields" },
            name.element,
            h(
              "div",
              { class: "field check" },
              isAdmin,
              h("label", { for: "key-admin" }, "Administrator"),
              h("span", { class: "help" }, "May cancel the jobs of others, and make keys."),
            ),
          ),
          h("p", { class: "actions" }, button),
        ),
      ),
  );
}
