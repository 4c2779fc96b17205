// Fields of a number and what it counts.

import { h } from "../lib/dom.js";
import { asNumber, field } from "./fields.js";

/** A number beside a select; both are one field, whose errors are shown in one place. */
class Quantity {
  constructor(name, { title, help, of, choices, widths, ...attributes }) {
    const control = h("input", { type: "text", inputmode: "decimal", autocomplete: "off", ...attributes });
    this.amount = field(name, control, {
      title,
      help,
      read: (one) => asNumber(one.value),
      write: (one, value) => (one.value = value),
    });
    this.choice = h(
      "select",
      { "aria-label": of },
      choices.map((value) => h("option", { value }, value)),
    );
    const row = h("div", { class: "row", style: { "flex-wrap": "nowrap" } });
    control.replaceWith(row);
    row.append(control, this.choice);
    [control, this.choice].forEach((one, position) => one.style.setProperty("flex", `1 1 ${widths[position]}`));
    this.element = this.amount.element;
  }

  refuse(errors) {
    this.amount.refuse(errors.map((error) => error.detail).join("; ") || null);
    return [];
  }
}

/** How long to train: so many epochs, steps or seconds. */
export class Budget extends Quantity {
  constructor() {
    super("budget", {
      title: "Budget",
      help: "How long to train.",
      of: "Unit of the budget",
      choices: ["epochs", "steps", "seconds"],
      widths: ["4rem", "5.5rem"],
      value: "10",
    });
  }

  value() {
    return { [this.choice.value]: this.amount.value() };
  }

  set(given) {
    const [unit, value] = Object.entries(given).find(([, one]) => one !== null && one !== undefined) ?? ["epochs", 10];
    this.choice.value = unit;
    this.amount.set(value);
  }
}

/** A validation metric to reach, which may be left out. */
export class Target extends Quantity {
  constructor() {
    super("target", {
      title: "Target",
      help: "When it is reached is recorded: 0.95 of val_accuracy, say.",
      of: "Metric of the target",
      choices: ["val_accuracy", "val_loss"],
      widths: ["4rem", "7rem"],
      placeholder: "none",
    });
  }

  value() {
    return this.amount.control.value.trim() === ""
      ? undefined
      : { metric: this.choice.value, value: this.amount.value() };
  }

  set(given) {
    this.choice.value = given.metric;
    this.amount.set(given.value);
  }
}
