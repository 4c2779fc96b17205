// The elements of the page of keys.

import { actionButton, copyable } from "../../components/buttons.js";
import { time } from "../../components/layout.js";
import { note } from "../../components/states.js";
import { table } from "../../components/table.js";
import { textField } from "../../forms/field.js";
import { h } from "../../lib/dom.js";
import { ago } from "../../lib/format.js";

const HINT = "First digits of the key's SHA-256 hash; the key itself is not stored";

/** The list of keys; `revoke` gets the key of the pressed button. */
export const keyTable = (keys, revoke) =>
  table({
    label: "Keys",
    columns: [
      {
        title: "User",
        kind: "head",
        cell: (key) => [key.user, key.is_admin && h("span", { class: "why" }, " admin")],
      },
      { title: "Fingerprint", kind: "text", hint: HINT, cell: (key) => h("code", {}, key.fingerprint) },
      { title: "Created", kind: "text", cell: (key) => time(key.created_at, ago(key.created_at)) },
      {
        title: "",
        cell: (key) => (key.is_used ? h("span", { class: "why" }, "current session") : revokeButton(key, revoke)),
      },
    ],
    rows: keys,
    rowKey: (key) => key.id,
  });

const revokeButton = (key, revoke) =>
  actionButton("Revoke", () => revoke(key), {
    kind: "small danger",
    confirm: "Click again to revoke",
    label: `Revoke key ${key.fingerprint} of ${key.user}`,
  });

/** The key that was just created. */
export const newKeyView = ({ user, key }) =>
  h(
    "div",
    { class: "verdict", role: "status" },
    h("p", {}, h("b", {}, `Key of ${user}`), copyable(key)),
    note("Copy it now: it cannot be shown again."),
  );

/** The form for a new key: its fields, its button and its element. */
export function keyForm(onsubmit) {
  const name = textField("user", {
    help: "Letters, digits, spaces and any of _.:/@+=-. The user is created if needed.",
    placeholder: "ada",
  });
  const isAdmin = h("input", { type: "checkbox", id: "key-admin" });
  const button = h("button", { class: "primary", type: "submit" }, "Create key");
  const checkbox = h(
    "div",
    { class: "field check" },
    isAdmin,
    h("label", { for: "key-admin" }, "Administrator"),
    h("span", { class: "help" }, "May change the jobs and data of other users, and create keys."),
  );
  const element = h(
    "form",
    { onsubmit, novalidate: true },
    h("div", { class: "fields" }, name.element, checkbox),
    h("p", { class: "actions" }, button),
  );
  return { name, isAdmin, button, element };
}
