// The form for a job, with the resolved spec beside it.

import { code, pageHead, section, folded } from "../../components/layout.js";
import { warningTexts } from "../../components/states.js";
import { CatalogChoice } from "../../forms/catalog_choice.js";
import { optimizerEntries, unlistedEntry } from "../../forms/optimizer_entries.js";
import { DryRunForm, parseObject } from "../../forms/dry_run_form.js";
import { fieldGrid } from "../../forms/layout.js";
import { catalogOfForms } from "../../forms/model_entries.js";
import { schemaField } from "../../forms/schema_field.js";
import { tagsField } from "../../forms/tags_field.js";
import { TrainingFields } from "../../forms/training_fields.js";
import { get } from "../../lib/api.js";
import { fill, h } from "../../lib/dom.js";
import { bytes, counted, shortId } from "../../lib/format.js";

const MAIN_FIELDS = ["batch_size", "seed"];
const MORE_FIELDS = [
  "precision",
  "device",
  "gradient_clip",
  "eval_every_steps",
  "log_every_steps",
  "diagnostics_every_steps",
  "stop_at_target",
  "evaluate_test",
  "priority",
  "time_limit_seconds",
  "memory_limit_bytes",
  "max_failures",
];
const JOB_FIELDS = ["tags", "priority", "time_limit_seconds", "memory_limit_bytes", "max_failures"]; // not in the spec
const INITIAL = { dataset: "digits", model: "mlp", optimizer: { name: "ko", params: {} }, budget: { epochs: 30 } };

export async function mount(root, { go, query, keepQuery, signal }) {
  const { catalog, schemas, original } = await fetchAll(query.get("from"), signal);
  const fields = jobFields(catalog, schemas);
  const form = new DryRunForm("/v1/jobs", {
    submitTitle: "Submit",
    value: () => fields.training.value(),
    showErrors: (errors) => fields.training.showErrors(errors),
    plan: planView,
    onCreated: (job) => go(`/jobs/${job.id}`),
    keepQuery,
    signal,
  });
  fill(root, headView(original), form.element(formView(fields)));
  fields.training.set(INITIAL);
  if (original) fields.training.set(requestOf(original));
  else if (query.get("spec")) fields.training.set(parseObject(query.get("spec"), {}));
  await form.check();
}

/** The catalog, the API's schemas, and the job that the new one is a variation of. */
async function fetchAll(from, signal) {
  const [catalog, document, original] = await Promise.all([
    catalogOfForms(signal),
    get("/openapi.json", {}, signal),
    from ? get(`/v1/jobs/${encodeURIComponent(from)}`, {}, signal) : null,
  ]);
  return { catalog, schemas: document.components.schemas, original };
}

/** A job's request as it was submitted. */
const requestOf = (job) => ({ ...job.spec, ...Object.fromEntries(JOB_FIELDS.map((name) => [name, job[name]])) });

function jobFields(catalog, schemas) {
  const make = (name) => schemaField(name, schemas.JobRequest.properties[name], schemas);
  const main = MAIN_FIELDS.map(make);
  const tags = tagsField();
  const more = MORE_FIELDS.map(make);
  const optimizer = new CatalogChoice("optimizer", optimizerEntries(catalog), { unlisted: unlistedEntry });
  return { main, tags, more, training: new TrainingFields(catalog, [...main, tags, ...more], { optimizer }) };
}

// --- view ---

const headView = (original) =>
  pageHead(original ? "Job variation" : "New job", {
    sub: original && [
      "Based on job ",
      h("a", { href: `/jobs/${original.id}` }, shortId(original.id)),
      ". Change the fields that you want to vary.",
    ],
  });

function formView({ main, tags, more, training }) {
  const { dataset, model, optimizer, schedule, budget, target } = training.parts;
  const columns = (...parts) =>
    h(
      "div",
      { class: "columns" },
      parts.map((part) => part.element),
    );
  return [
    section("Data and model", columns(dataset, model)),
    section("Optimizer and schedule", columns(optimizer, schedule)),
    section("Training", fieldGrid([budget, ...main, target, tags])),
    section("Further settings", folded("Precision, device, evaluation, limits", fieldGrid(more))),
  ];
}

const planView = (answer) => ({
  summary: [
    h("h2", {}, "Resolved spec"),
    h("p", { class: "note" }, "All defaults made explicit."),
    answer.model && modelView(answer.model),
    warningTexts(answer.warnings),
  ],
  details: code(answer.spec),
});

/** How the model of a library is fitted to the data. */
const modelView = ({ parameters, least_memory_bytes: memory, stem, head }) =>
  h("ul", {}, [
    h("li", {}, `Model: ${counted(parameters, "parameter")}; at least ${bytes(memory)} of memory without activations.`),
    stem && h("li", {}, `Stem fitted to the data: ${stem}.`),
    head && h("li", {}, `Head fitted to the data: ${head}.`),
  ]);
