// The parameters of an optimizer that a comparison tunes, and the values that it tries.

import { fill, h, uniqueId } from "../lib/dom.js";
import { asNumber } from "./fields.js";
import { action } from "../components/parts.js";

const FORMS = [
  ["log_uniform", "log range"],
  ["uniform", "range"],
  ["integer", "integers"],
  ["choice", "one of"],
];
const USUAL = [0.0003, 0.03];

/** The search space of one optimizer. `onChange` is called where a row comes or goes. */
export class Space {
  constructor({ onChange }) {
    this.onChange = onChange;
    this.offered = {};
    this.rows = [];
    this.list = h("div", { class: "choice" });
    this.more = action("Tune a parameter", async () => this.addNext(), { kind: "small" });
    this.element = h("div", { class: "choice" }, this.list, h("div", { class: "actions" }, this.more));
  }

  names() {
    return this.rows.map((row) => row.name.value);
  }

  free() {
    return Object.keys(this.offered).filter((name) => !this.names().includes(name));
  }

  /**
   * Which parameters the optimizer has now, as `tunable` tells: rows of those that it had before go, and no two rows are
   * of the same. What no form could have made came by an address, and stays for the API to judge.
   */
  offer(parameters) {
    const kept = this.rows.filter(({ name }) => name.value in parameters || !(name.value in this.offered));
    this.offered = parameters;
    if (kept.length < this.rows.length) this.draw(kept);
    const taken = this.names();
    for (const { name } of this.rows) {
      const mine = name.value;
      const names = Object.keys(parameters);
      fill(
        name,
        (names.includes(mine) ? names : [mine, ...names]).map((one) =>
          h("option", { value: one, disabled: one !== mine && taken.includes(one) }, one),
        ),
      );
      name.value = mine;
    }
    this.more.hidden = this.free().length === 0;
  }

  draw(rows) {
    this.rows = rows;
    fill(
      this.list,
      rows.map((row) => row.element),
    );
  }

  addNext() {
    const [name] = this.free();
    const values = this.offered[name];
    this.add(name, values ? { choice: values } : { log_uniform: USUAL });
  }

  add(parameter, range) {
    const [form, values] = Object.entries(range).find(([, value]) => Array.isArray(value)) ?? ["choice", []];
    const name = h("select", { "aria-label": "Tuned parameter" }, h("option", { value: parameter }, parameter));
    const kind = h(
      "select",
      { "aria-label": "How it is tried" },
      FORMS.map(([value, text]) => h("option", { value }, text)),
    );
    kind.value = form;
    const error = h("span", { class: "error", id: uniqueId("range-error") });
    const typed = h("input", {
      type: "text",
      autocomplete: "off",
      spellcheck: "false",
      value: values.join(", "),
      "aria-label": "Values",
      "aria-describedby": error.id,
      placeholder: "0.0003, 0.03",
    });
    const row = { name, kind, typed, error };
    row.element = h(
      "div",
      { class: "field", role: "group", "aria-label": "A tuned parameter" },
      h(
        "div",
        { class: "row" },
        h("span", { style: { flex: "1 1 7rem" } }, name),
        h("span", { style: { flex: "1 1 10rem" } }, kind),
        h("span", { style: { flex: "1 1 8rem" } }, typed),
        action("Remove", async () => this.remove(row), { kind: "quiet small" }),
      ),
      error,
    );
    this.draw([...this.rows, row]);
    this.onChange();
  }

  remove(row) {
    this.draw(this.rows.filter((one) => one !== row));
    this.onChange();
  }

  /** As the API takes it; undefined where nothing is tuned. */
  value() {
    if (!this.rows.length) return undefined;
    return Object.fromEntries(
      this.rows.map(({ name, kind, typed }) => [name.value, { [kind.value]: typed.value.split(",").map(asNumber) }]),
    );
  }

  /** Show each error at the row of its parameter; answers those of no row. Pointers begin with the parameter. */
  refuse(errors) {
    const of = (row, error) => error.pointer.split("/")[1] === row.name.value;
    for (const row of this.rows) {
      const own = errors.filter((error) => of(row, error));
      fill(row.error, own.map((error) => error.detail).join("; "));
      if (own.length) row.typed.setAttribute("aria-invalid", "true");
      else row.typed.removeAttribute("aria-invalid");
    }
    return errors.filter((error) => !this.rows.some((row) => of(row, error)));
  }
}
