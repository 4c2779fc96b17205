// API keys: list, create and revoke.

import { pageHead, section } from "../../components/layout.js";
import { toast } from "../../components/toast.js";
import { get, post, remove } from "../../lib/api.js";
import { fill, h } from "../../lib/dom.js";
import { keyForm, keyTable, newKeyView } from "./view.js";

export async function mount(root, { user, signal }) {
  const list = h("div", { class: "part" });
  const created = h("div");
  const form = keyForm(create);

  async function load() {
    const { keys } = await get("/v1/keys", {}, signal);
    fill(list, keyTable(keys, revoke));
  }

  async function revoke(key) {
    await remove(`/v1/keys/${key.id}`);
    toast(`Key ${key.fingerprint} of ${key.user} revoked.`);
    await load();
  }

  async function create(event) {
    event.preventDefault();
    form.name.setError(null);
    form.button.disabled = true; // a second click would create another key, and only one of them would be shown
    try {
      const answer = await post("/v1/keys", { user: form.name.value() ?? "", admin: form.isAdmin.checked });
      fill(created, newKeyView(answer));
      form.element.reset();
      await load();
    } catch (error) {
      form.name.setError(error.fields?.length ? error.fields[0].detail : error.message);
      form.name.control.focus();
    } finally {
      form.button.disabled = false;
    }
  }

  await load(); // before the form below it is shown, which would move
  const sub = user.is_admin
    ? "Keys give access to this server. Treat each like a password, and create one for each person or program."
    : "Your keys. An administrator creates new ones.";
  fill(root, pageHead("Keys", { sub }), created, list, user.is_admin && section("New key", form.element));
}
