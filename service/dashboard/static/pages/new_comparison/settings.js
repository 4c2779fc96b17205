// The settings of a comparison beside its optimizers and tasks: seeds, endpoint, tuning, limits.

import { showFieldErrors } from "../../forms/errors.js";
import { selectField, textField } from "../../forms/field.js";
import { parseNumber, parseNumbers } from "../../forms/parse_number.js";
import { schemaField } from "../../forms/schema_field.js";
import { tagsField } from "../../forms/tags_field.js";
import { defined } from "../../forms/training_fields.js";

const MORE_FIELDS = ["reuse", "diverged_score", "priority", "time_limit_seconds", "max_failures"];
const METHODS = [
  ["quasi_random", "quasi-random search"],
  ["halving", "successive halving"],
  ["grid", "grid search"],
];
const SPLITS = [
  ["seed", "same for all seeds"],
  ["seed,split", "new for each seed"],
];
const USUAL = { method: "quasi_random", vary: "seed" };

const optional = (text, parse) => (text === undefined ? undefined : parse(text));
const parseLooks = (text) => (text === "any" ? "any" : parseNumbers(text));
const unlessUsual = (value, usual) => (value === usual ? undefined : value);

function makeFields({ metric }) {
  return {
    name: textField("name", { help: "Title of the reports.", placeholder: "KO against Adam, digits" }),
    seeds: textField("max", { title: "Seeds", help: "Maximum number of runs per optimizer and task." }),
    looks: textField("looks", {
      help: "Numbers of seeds at which the comparison stops if the verdict is clear, such as 5, 10. `any`: after each seed. Empty: at the end only.",
    }),
    metric: selectField(
      "metric",
      metric.enum.map((value) => [value, value]),
      { title: "Endpoint", help: metric.description },
    ),
    trials: textField("trials", { help: "Configurations to try for each tuned optimizer." }),
    method: selectField("method", METHODS, { help: "Search method." }),
    vary: selectField("vary", SPLITS, {
      title: "Data split",
      help: "A new split for each seed extends the verdict beyond one split.",
    }),
    tags: tagsField(),
  };
}

export class Settings {
  constructor(schemas) {
    const { properties } = schemas.ComparisonRequest;
    this.usualMetric = properties.metric.default;
    this.fields = makeFields(properties);
    this.more = MORE_FIELDS.map((name) => schemaField(name, properties[name], schemas));
  }

  /** The values for the API; `isTuned` says whether an optimizer has a search space. */
  value(isTuned) {
    const { name, seeds, looks, metric, trials, method, vary, tags } = this.fields;
    const tuning = defined({
      trials: optional(trials.value(), parseNumber),
      method: unlessUsual(method.value(), USUAL.method),
    });
    return defined({
      name: name.value(),
      seeds: defined({ max: optional(seeds.value(), parseNumber), looks: optional(looks.value(), parseLooks) }),
      tuning: isTuned ? tuning : undefined,
      metric: unlessUsual(metric.value(), this.usualMetric),
      vary: unlessUsual(vary.value(), USUAL.vary)?.split(","),
      tags: tags.value(),
      ...Object.fromEntries(this.more.map((field) => [field.name, field.value()])),
    });
  }

  set(request) {
    const { name, seeds, looks, metric, trials, method, vary, tags } = this.fields;
    name.set(request.name);
    seeds.set(request.seeds?.max ?? 10);
    looks.set([request.seeds?.looks ?? ""].flat().join(", "));
    trials.set(request.tuning?.trials ?? "");
    method.set(request.tuning?.method ?? USUAL.method);
    metric.set(request.metric ?? this.usualMetric);
    vary.set([request.vary ?? USUAL.vary].flat().join(","));
    if (request.tags) tags.set(request.tags);
    for (const field of this.more) if (request[field.name] !== undefined) field.set(request[field.name]);
  }

  /** The groups of fields that are objects in the request, for `showPartErrors`. */
  get parts() {
    const { seeds, looks, trials, method } = this.fields;
    const atTrials = (error) => (error.pointer === "/" ? { ...error, pointer: "/trials" } : error);
    return {
      seeds: { showErrors: (errors) => showFieldErrors([seeds, looks], errors) },
      tuning: { showErrors: (errors) => showFieldErrors([trials, method], errors.map(atTrials)) },
    };
  }

  /** The fields of single values. */
  get single() {
    const { name, metric, vary, tags } = this.fields;
    return [name, metric, vary, tags, ...this.more];
  }
}
