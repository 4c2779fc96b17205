// The fields that jobs and tasks of comparisons share: data set, model, schedule, budget, target and others.

import { CatalogChoice } from "./catalog_choice.js";
import { showFieldErrors, showPartErrors } from "./errors.js";
import { Budget, Target } from "./quantity.js";

/** The entries of an object whose value is not undefined. */
export const defined = (values) =>
  Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined));

export class TrainingFields {
  #models;

  /** `fields` have single values; `parts` are objects with `value`, `set` and `showErrors`. */
  constructor(catalog, fields, parts = {}) {
    this.#models = catalog.models;
    this.fields = fields;
    this.parts = {
      dataset: new CatalogChoice("dataset", catalog.datasets, { onChange: () => this.#offerModels() }),
      model: new CatalogChoice("model", catalog.models),
      ...parts,
      schedule: new CatalogChoice("schedule", catalog.schedules, { title: "Learning rate schedule" }),
      budget: new Budget(),
      target: new Target(),
    };
    this.#offerModels();
  }

  /** Offer the models that read the selected data set's kind of records. */
  #offerModels() {
    const kind = this.parts.dataset.entry?.kind;
    this.parts.model.offer(this.#models.filter((entry) => [entry.reads, ...entry.also_reads].includes(kind)));
  }

  /** The values for the API, without those left at their defaults. */
  value() {
    const inputs = [...Object.entries(this.parts), ...this.fields.map((field) => [field.name, field])];
    const values = Object.fromEntries(inputs.map(([name, input]) => [name, input.value()]));
    if (values.schedule === "constant") delete values.schedule;
    return defined(values);
  }

  /** Fill in the given values; null stands for a default. */
  set(values) {
    for (const [name, value] of Object.entries(values)) {
      if (value === null || value === undefined) continue;
      (this.parts[name] ?? this.fields.find((field) => field.name === name))?.set(value);
      if (name === "dataset") this.#offerModels();
    }
  }

  showErrors(errors) {
    return showFieldErrors(this.fields, showPartErrors(this.parts, errors));
  }
}
