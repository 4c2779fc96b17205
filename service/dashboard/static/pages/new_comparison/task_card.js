// The card of a task: data set, model, budget and further fields.

import { folded } from "../../components/layout.js";
import { fieldGrid, stack } from "../../forms/layout.js";
import { schemaField } from "../../forms/schema_field.js";
import { TrainingFields } from "../../forms/training_fields.js";
import { h } from "../../lib/dom.js";

const MORE_FIELDS = [
  "batch_size",
  "precision",
  "device",
  "gradient_clip",
  "eval_every_steps",
  "log_every_steps",
  "diagnostics_every_steps",
];

export function taskCard(catalog, schemas, task) {
  const properties = schemas.TaskRequest.properties;
  const fields = MORE_FIELDS.map((name) => schemaField(name, properties[name], schemas));
  const training = new TrainingFields(catalog, fields);
  training.set(task);
  const { dataset, model, schedule, budget, target } = training.parts;
  return {
    content: [
      h("div", { class: "columns" }, dataset.element, model.element),
      fieldGrid([budget, target]),
      folded("Schedule, batch size, precision, evaluation", stack(schedule.element, fieldGrid(fields))),
    ],
    value: () => training.value(),
    showErrors: (errors) => training.showErrors(errors),
  };
}
