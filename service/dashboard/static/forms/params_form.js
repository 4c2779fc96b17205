// The parameters of a data set, model, optimizer or schedule.

import { fill, h } from "../lib/dom.js";
import { folded } from "../components/layout.js";
import { showFieldErrors } from "./errors.js";
import { field } from "./field.js";
import { fieldGrid } from "./layout.js";
import { resolved, schemaField } from "./schema_field.js";

const MAX_UNFOLDED = 4; // parameters that are shown without folding
const ALWAYS_FOLDED = ["split_seed"];
const NEVER_FOLDED = [
  "lr",
  "base",
  "collision",
  "gamma",
  "momentum",
  "weight_decay",
  "hidden",
  "split",
  "image_size",
  "control",
  "strength",
  "warmup_steps",
];
const USUAL_BASE = "adam";

/** The property that is constant in several schemas and tells them apart; undefined for a single schema. */
function discriminator(branches) {
  const closed = branches.filter((branch) => !isOpen(branch));
  if (closed.length < 2) return undefined;
  return Object.keys(closed[0].properties).find((name) =>
    closed.every((branch) => branch.properties[name]?.const !== undefined),
  );
}

/** Whether a schema accepts properties that it does not name: those of optimizers of libraries as the base of KO. */
const isOpen = (branch) => branch.additionalProperties === true;

/** Where the schema has several variants (KO with each of its base optimizers), a drop-down list selects one. */
export class ParamsForm {
  #fields = [];
  #picker = null;
  #unnamed = {}; // values without a field, of an open branch

  constructor(schema) {
    this.defs = schema.$defs ?? {};
    this.branches = (schema.oneOf ?? schema.anyOf ?? [schema]).map((branch) => resolved(branch, this.defs));
    this.key = discriminator(this.branches);
    this.element = h("div", { class: "choice" });
    if (this.key) this.#picker = this.#makePicker(schema.default);
    this.#build();
  }

  #makePicker(usual) {
    const values = this.branches.filter((branch) => !isOpen(branch)).map((branch) => branch.properties[this.key].const);
    const initial = usual?.[this.key] ?? (values.includes(USUAL_BASE) ? USUAL_BASE : values[0]);
    const control = h(
      "select",
      {},
      values.map((value) => h("option", { value }, value)),
    );
    control.value = initial;
    control.addEventListener("change", () => this.#build(this.values()));
    return field(this.key, control, {
      help: "The base optimizer.",
      read: (select) => (select.value === initial ? undefined : select.value),
    });
  }

  /** Select a variant. One that is not listed is added, if it can be of an open branch. */
  #select(value) {
    const { control } = this.#picker;
    const isListed = Array.from(control.options).some((option) => option.value === value);
    if (!isListed && this.branches.some(isOpen)) control.append(h("option", { value }, value));
    this.#picker.set(value);
  }

  get #branch() {
    const selected = this.#picker?.control.value;
    const isSelected = (branch) => branch.properties?.[this.key]?.const === selected;
    return this.branches.find(isSelected) ?? this.branches.find(isOpen) ?? this.branches[0];
  }

  /** Make the fields of the selected variant, with the given values. */
  #build(values = {}) {
    this.#fields = Object.entries(this.#branch.properties ?? {})
      .filter(([name, property]) => property.const === undefined && name !== this.key)
      .map(([name, property]) => schemaField(name, property, this.defs));
    for (const input of this.#fields) if (values[input.name] !== undefined) input.set(values[input.name]);
    const named = [this.key, ...this.#fields.map((input) => input.name)];
    const unnamed = Object.entries(values).filter(([name]) => !named.includes(name));
    this.#unnamed = isOpen(this.#branch) ? Object.fromEntries(unnamed) : {};
    const hasFolded = this.#fields.some(({ name }) => ALWAYS_FOLDED.includes(name));
    const areFew = this.#fields.length <= MAX_UNFOLDED && !hasFolded;
    const isShown = ({ name }) => areFew || NEVER_FOLDED.includes(name);
    const shown = [this.#picker, ...this.#fields.filter(isShown)].filter(Boolean);
    const rest = this.#fields.filter((input) => !isShown(input));
    const more = rest.length > 0 && folded(`${rest.length} more ${plural(rest)}`, fieldGrid(rest));
    if (more) more.open = rest.some((input) => values[input.name] !== undefined);
    fill(this.element, shown.length > 0 && fieldGrid(shown), more);
  }

  get #all() {
    return this.#picker ? [this.#picker, ...this.#fields] : this.#fields;
  }

  /** The values that differ from the defaults, by name. */
  values() {
    const values = this.#all.filter((input) => !input.control.disabled).map((input) => [input.name, input.value()]);
    return { ...this.#unnamed, ...Object.fromEntries(values.filter(([, value]) => value !== undefined)) };
  }

  set(values) {
    if (this.#picker && values[this.key] !== undefined) this.#select(values[this.key]);
    this.#build(values);
  }

  /** Disable the fields of parameters that are tuned and have no fixed value. */
  disableTuned(names) {
    for (const { name, control, placeholder } of this.#fields) {
      control.disabled = names.includes(name);
      control.placeholder = control.disabled ? "tuned below" : placeholder;
    }
  }

  /** The parameters that can be tuned: the values of a choice, null for a number. */
  tunable() {
    const numbers = this.#fields.filter((input) => input.control.inputMode === "decimal");
    const choices = this.#fields.filter((input) => input.control.tagName === "SELECT");
    return Object.fromEntries([
      ...numbers.map((input) => [input.name, null]),
      ...choices.map((input) => [input.name, Array.from(input.control.options, (option) => option.value)]),
    ]);
  }

  showErrors(errors) {
    return showFieldErrors(this.#all, errors);
  }
}

const plural = (fields) => (fields.length === 1 ? "parameter" : "parameters");
