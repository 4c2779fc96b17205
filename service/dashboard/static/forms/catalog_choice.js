// A field for an entry of the catalog and its parameters.

import { get } from "../lib/api.js";
import { fill, h } from "../lib/dom.js";
import { details, errorsBelow } from "./errors.js";
import { field } from "./field.js";
import { ParamsForm } from "./params_form.js";

/** The schema of parameters that are not known, or not yet; it keeps all values. */
const UNKNOWN_PARAMS = { properties: {}, additionalProperties: true };

/** Options of entries: first those without a group, then each group. */
function options(entries) {
  const option = ({ name, present }) =>
    present === false
      ? h("option", { value: name, disabled: true }, `${name} (not available)`)
      : h("option", { value: name }, name);
  const groups = Map.groupBy(entries, (entry) => entry.group);
  return [...groups].map(([label, members]) =>
    label === undefined ? members.map(option) : h("optgroup", { label }, members.map(option)),
  );
}

export class CatalogChoice {
  #entries = [];
  #description = h("p", { class: "note" });
  #params = h("div");

  /** `kind` is the field's name in the API; `onChange` is called when the user selects another entry, `unlisted` makes one. */
  constructor(kind, entries, { title, onChange, unlisted = () => undefined } = {}) {
    this.unlisted = unlisted;
    const control = h("select");
    this.select = field(kind, control, { title, read: (select) => select.value });
    this.element = h("div", { class: "choice" }, this.select.element, this.#description, this.#params);
    this.#list(entries);
    control.addEventListener("change", () => {
      this.#show();
      onChange?.();
    });
    control.value = entries.find((entry) => entry.present !== false)?.name;
    this.#show();
  }

  #list(entries) {
    this.#entries = entries;
    fill(this.select.control, options(entries));
  }

  get name() {
    return this.select.control.value;
  }

  get entry() {
    return this.#entries.find((entry) => entry.name === this.name);
  }

  /** Whether the parameters of the selected entry are being fetched. */
  get isLoading() {
    return this.entry?.address !== undefined && !this.entry.params;
  }

  /** Offer only these entries; the selected one stays if it is among them. */
  offer(entries) {
    const before = this.name;
    this.#list(entries);
    this.select.set(entries.some((entry) => entry.name === before) ? before : entries[0]?.name);
    if (this.name !== before) this.#show();
  }

  #show(values = {}) {
    const { entry } = this;
    fill(this.#description, entry?.title ?? "");
    this.params = new ParamsForm(entry?.params ?? UNKNOWN_PARAMS);
    fill(this.#params, this.params.element);
    this.params.set(values);
    if (this.isLoading) this.#load(entry);
  }

  /** Fetch the parameters of an entry that has only their address. */
  async #load(entry) {
    try {
      entry.params = (await get(entry.address)).params;
    } catch (error) {
      if (this.entry === entry) fill(this.#description, `${entry.title}: ${error.message}`);
      return;
    }
    if (this.entry !== entry) return;
    this.#show(this.params.values());
    this.element.dispatchEvent(new Event("change", { bubbles: true }));
  }

  /** The value for the API: the name alone if all parameters have their defaults. */
  value() {
    const params = this.params.values();
    return Object.keys(params).length ? { name: this.name, params } : this.name;
  }

  set(choice) {
    const { name, params } = typeof choice === "string" ? { name: choice } : choice;
    // An entry that no longer exists is shown, so that the API rejects it, instead of being silently replaced.
    if (!this.#entries.some((entry) => entry.name === name)) {
      this.#list([...this.#entries, this.unlisted(name) ?? { name, present: false }]);
    }
    this.select.set(name);
    this.#show(params ?? {});
  }

  showErrors(errors) {
    this.select.setError(details(errors.filter((error) => !error.pointer.startsWith("/params/"))));
    return this.params.showErrors(errorsBelow(errors, "/params"));
  }
}
