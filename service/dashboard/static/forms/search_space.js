// The search space of an optimizer: its tuned hyperparameters and the values to try.

import { actionButton } from "../components/buttons.js";
import { actions } from "../components/layout.js";
import { fill, h, uniqueId } from "../lib/dom.js";
import { details } from "./errors.js";
import { stack } from "./layout.js";
import { parseNumbers } from "./parse_number.js";

const DISTRIBUTIONS = [
  ["log_uniform", "log-uniform"],
  ["uniform", "uniform"],
  ["integer", "integers"],
  ["choice", "choice"],
];
const USUAL_RANGE = { log_uniform: [0.0003, 0.03] };

export class SearchSpace {
  #tunable = {};
  #rows = [];

  /** `onChange` is called when a row is added or removed. */
  constructor({ onChange }) {
    this.onChange = onChange;
    this.list = h("div", { class: "choice" });
    this.addButton = actionButton("Tune a hyperparameter", async () => this.#addNext(), { kind: "small" });
    this.element = stack(this.list, actions(this.addButton));
  }

  /** The names of the tuned hyperparameters. */
  names() {
    return this.#rows.map((row) => row.name.value);
  }

  #untuned() {
    return Object.keys(this.#tunable).filter((name) => !this.names().includes(name));
  }

  /**
   * Offer the parameters of another optimizer or variant, as `ParamsForm.tunable` returns them. Rows of parameters that
   * it does not have are removed, except parameters from the address that were never offered: the API checks those.
   */
  offer(tunable) {
    const kept = this.#rows.filter(({ name }) => name.value in tunable || !(name.value in this.#tunable));
    this.#tunable = tunable;
    if (kept.length < this.#rows.length) this.#show(kept);
    for (const { name } of this.#rows) this.#offerNames(name);
    this.addButton.hidden = this.#untuned().length === 0;
  }

  /** Offer the names that no other row has. */
  #offerNames(select) {
    const selected = select.value;
    const taken = this.names();
    const names = Object.keys(this.#tunable);
    const option = (value) => h("option", { value, disabled: value !== selected && taken.includes(value) }, value);
    fill(select, (names.includes(selected) ? names : [selected, ...names]).map(option));
    select.value = selected;
  }

  #show(rows) {
    this.#rows = rows;
    fill(
      this.list,
      rows.map((row) => row.element),
    );
  }

  #addNext() {
    const [name] = this.#untuned();
    const values = this.#tunable[name];
    this.add(name, values ? { choice: values } : USUAL_RANGE);
  }

  /** Add a tuned hyperparameter with its range in the API's format. */
  add(parameter, range) {
    const row = spaceRow(parameter, range, () => this.#remove(row));
    this.#show([...this.#rows, row]);
    this.onChange();
  }

  #remove(row) {
    this.#show(this.#rows.filter((other) => other !== row));
    this.onChange();
  }

  /** The search space for the API; undefined if nothing is tuned. */
  value() {
    if (!this.#rows.length) return undefined;
    return Object.fromEntries(
      this.#rows.map(({ name, distribution, values }) => [
        name.value,
        { [distribution.value]: parseNumbers(values.value) },
      ]),
    );
  }

  /** Show each error at the row of its parameter, by which its pointer begins; return those without a row. */
  showErrors(errors) {
    const isAbout = (row, error) => error.pointer.split("/")[1] === row.name.value;
    for (const row of this.#rows) row.setError(details(errors.filter((error) => isAbout(row, error))));
    return errors.filter((error) => !this.#rows.some((row) => isAbout(row, error)));
  }
}

function spaceRow(parameter, range, remove) {
  const [kind, numbers] = Object.entries(range).find(([, value]) => Array.isArray(value)) ?? ["choice", []];
  const name = h("select", { "aria-label": "Tuned hyperparameter" }, h("option", { value: parameter }, parameter));
  const distribution = h(
    "select",
    { "aria-label": "Distribution" },
    DISTRIBUTIONS.map(([value, text]) => h("option", { value }, text)),
  );
  distribution.value = kind;
  const error = h("span", { class: "error", id: uniqueId("range-error") });
  const values = h("input", {
    type: "text",
    autocomplete: "off",
    spellcheck: "false",
    value: numbers.join(", "),
    "aria-label": "Values",
    "aria-describedby": error.id,
    placeholder: "0.0003, 0.03",
  });
  const cell = (control, width) => h("span", { style: { flex: `1 1 ${width}` } }, control);
  const element = h(
    "div",
    { class: "field", role: "group", "aria-label": "A tuned hyperparameter" },
    h(
      "div",
      { class: "row" },
      cell(name, "7rem"),
      cell(distribution, "10rem"),
      cell(values, "8rem"),
      actionButton("Remove", async () => remove(), { kind: "quiet small" }),
    ),
    error,
  );
  const setError = (text) => {
    fill(error, text ?? "");
    if (text) values.setAttribute("aria-invalid", "true");
    else values.removeAttribute("aria-invalid");
  };
  return { element, name, distribution, values, setError };
}
