// The fields that filter the list of jobs.

import { h } from "../../lib/dom.js";
import { debounce } from "../../lib/timing.js";

const TYPING_MILLISECONDS = 250;

export class FilterBar {
  #fields = {};
  #errors = {};

  /** `onChange` gets the name and the value of a changed field. */
  constructor(filter, catalog, onChange) {
    this.filter = filter;
    this.onChange = onChange;
    const names = (entries) => entries.map((entry) => entry.name);
    this.element = h(
      "div",
      { class: "filters" },
      this.#text("Search", "search", "ko, digits, ada, a tag\u2019s value"),
      this.#select("Data set", "dataset", names(catalog.datasets)),
      this.#select("Model", "model", names(catalog.models)),
      this.#select("Optimizer", "optimizer", names(catalog.optimizers)),
      this.#text("User", "user", "name"),
      this.#text("Tag", "tag", "KEY:VALUE"),
    );
    this.show(filter);
  }

  /** Show values by name. Other fields are not changed, because the user may be typing in them. */
  show(values) {
    for (const [name, value] of Object.entries(values)) if (name in this.#fields) this.#fields[name].value = value;
  }

  /** Show an error at a field, or remove it with an empty text. Returns whether the field exists. */
  setError(name, text) {
    if (!(name in this.#fields)) return false;
    this.#errors[name].textContent = text;
    this.#fields[name].setAttribute("aria-invalid", text !== "");
    return true;
  }

  /** Show the API's field errors; returns whether a field could show one. */
  showErrors(errors) {
    return errors.map((error) => this.setError(error.pointer, error.detail)).includes(true);
  }

  #select(title, name, options) {
    const value = this.filter[name];
    const unknown = value && !options.includes(value) ? [value] : []; // from the address, or of a deleted data set
    return this.#field(
      title,
      name,
      h(
        "select",
        { onchange: (event) => this.onChange(name, event.target.value) },
        h("option", { value: "" }, "any"),
        [...options, ...unknown].map((value) => h("option", { value }, value)),
      ),
    );
  }

  #text(title, name, placeholder) {
    const changed = debounce((field) => this.onChange(name, field.value.trim()), TYPING_MILLISECONDS);
    return this.#field(
      title,
      name,
      h("input", {
        type: "search",
        placeholder,
        "data-search": name === "search",
        oninput: (event) => changed(event.target),
      }),
    );
  }

  #field(title, name, field) {
    field.id = `filter-${name}`;
    const error = h("span", { class: "error", id: `${field.id}-error` });
    field.setAttribute("aria-describedby", error.id);
    this.#fields[name] = field;
    this.#errors[name] = error;
    return h("div", { class: `field ${name}` }, h("label", { for: field.id }, title), field, error);
  }
}
