// What narrows the list of jobs.

import { debounced, h } from "../../lib/dom.js";

/** The fields that narrow the list; `onSet` gets the name and the value of one that changed. */
export class FilterBar {
  #fields = {};
  #errors = {};

  constructor(filter, catalog, onSet) {
    const names = (entries) => entries.map((entry) => entry.name);
    this.element = h(
      "div",
      { class: "filters" },
      this.#typed("Search", "search", { hint: "ko, digits, ada, a tag\u2019s value", onSet }),
      this.#pick("Data set", "dataset", { options: names(catalog.datasets), value: filter.dataset, onSet }),
      this.#pick("Model", "model", { options: names(catalog.models), value: filter.model, onSet }),
      this.#pick("Optimizer", "optimizer", { options: names(catalog.optimizers), value: filter.optimizer, onSet }),
      this.#typed("User", "user", { hint: "name", onSet }),
      this.#typed("Tag", "tag", { hint: "key:value", onSet }),
    );
    this.show(filter);
  }

  /** Values by name; other fields are left alone, since somebody may be typing there. */
  show(values) {
    for (const [name, value] of Object.entries(values)) if (name in this.#fields) this.#fields[name].value = value;
  }

  /** Say what is wrong with a field; nothing where `text` is empty. Returns whether there is such a field. */
  tell(name, text) {
    if (!(name in this.#fields)) return false;
    this.#errors[name].textContent = text;
    this.#fields[name].setAttribute("aria-invalid", text !== "");
    return true;
  }

  #pick(title, name, { options, value, onSet }) {
    const unknown = value && !options.includes(value) ? [value] : []; // of an address, or of a data set that is gone
    return this.#field(
      title,
      name,
      h(
        "select",
        { onchange: (event) => onSet(name, event.target.value) },
        h("option", { value: "" }, "any"),
        [...options, ...unknown].map((one) => h("option", { value: one }, one)),
      ),
    );
  }

  #typed(title, name, { hint, onSet }) {
    const set = debounced((field) => onSet(name, field.value.trim()), 250);
    return this.#field(
      title,
      name,
      h("input", {
        type: "search",
        placeholder: hint,
        "data-search": name === "search",
        oninput: (event) => set(event.target),
      }),
    );
  }

  #field(title, name, field) {
    const id = (field.id = `filter-${name}`);
    const error = h("span", { class: "error", id: `${id}-error` });
    field.setAttribute("aria-describedby", error.id);
    this.#fields[name] = field;
    this.#errors[name] = error;
    return h("div", { class: `field ${name}` }, h("label", { for: id }, title), field, error);
  }
}
