// Fields for a number and its unit or metric.

import { h } from "../lib/dom.js";
import { details } from "./errors.js";
import { field } from "./field.js";
import { parseNumber } from "./parse_number.js";

/** A number beside a drop-down list, as one field with one error message. */
class Quantity {
  constructor(name, { help, choiceLabel, choices, widths, ...attributes }) {
    const control = h("input", { type: "text", inputmode: "decimal", autocomplete: "off", ...attributes });
    this.amount = field(name, control, { help, read: (input) => parseNumber(input.value) });
    this.choice = h(
      "select",
      { "aria-label": choiceLabel },
      choices.map((value) => h("option", { value }, value)),
    );
    const row = h("div", { class: "row", style: { "flex-wrap": "nowrap" } });
    control.replaceWith(row);
    row.append(control, this.choice);
    [control, this.choice].forEach((element, position) => element.style.setProperty("flex", `1 1 ${widths[position]}`));
    this.element = this.amount.element;
  }

  showErrors(errors) {
    this.amount.setError(details(errors));
    return [];
  }
}

/** The length of a training run, in epochs, steps or seconds. */
export class Budget extends Quantity {
  constructor() {
    super("budget", {
      help: "Length of the training.",
      choiceLabel: "Unit of the budget",
      choices: ["epochs", "steps", "seconds"],
      widths: ["4rem", "5.5rem"],
      value: "10",
    });
  }

  value() {
    return { [this.choice.value]: this.amount.value() };
  }

  set(budget) {
    const entries = Object.entries(budget).filter(([, amount]) => amount !== null && amount !== undefined);
    const [unit, value] = entries[0] ?? ["epochs", 10];
    this.choice.value = unit;
    this.amount.set(value);
  }
}

/** The value of a validation metric to reach; optional. */
export class Target extends Quantity {
  constructor() {
    super("target", {
      help: "A validation score, such as 0.95 for val_accuracy; the time to reach it is recorded.",
      choiceLabel: "Metric of the target",
      choices: ["val_accuracy", "val_loss"],
      widths: ["3rem", "8.5rem"],
      placeholder: "none",
    });
  }

  value() {
    const isEmpty = this.amount.control.value.trim() === "";
    return isEmpty ? undefined : { metric: this.choice.value, value: this.amount.value() };
  }

  set(target) {
    this.choice.value = target.metric;
    this.amount.set(target.value);
  }
}
