// The details of an uploaded data set: its properties, class balance and some records.

import { actionButton } from "../../components/buttons.js";
import { facts, linkButton, section } from "../../components/layout.js";
import { note } from "../../components/states.js";
import { progressBar } from "../../components/status.js";
import { table } from "../../components/table.js";
import { withQuery } from "../../lib/api.js";
import { h } from "../../lib/dom.js";
import { ago, bytes, integer, number } from "../../lib/format.js";

const MAX_CLASSES = 30; // shown
const MAX_RECORDS = 8;
const USUAL_BATCH = 64;

export const sum = (values) => values.reduce((total, value) => total + value, 0);

/** A batch size for this number of records, of which some are used for validation; undefined for the default. */
const batchSize = (records) => (records >= 2 * USUAL_BATCH ? undefined : 2 ** Math.floor(Math.log2(records / 2)));

/** `models` are the catalog's; `onDelete` is false for users who may not delete the data set. */
export const datasetView = (dataset, models, onDelete) =>
  section(
    dataset.name,
    facts([
      ["kind", dataset.kind],
      [
        "records",
        `${integer(sum(dataset.train_per_class))} for training, ${integer(sum(dataset.test_per_class))} for testing`,
      ],
      ["shape", dataset.shape?.length && dataset.shape.join(" \u00d7 ")],
      ["file", `${dataset.file_format}, ${bytes(dataset.size_bytes)}`],
      ["owner", `${dataset.owner}, ${ago(dataset.created_at)}`],
      ["SHA-256", dataset.sha256.slice(0, 16)],
    ]),
    (dataset.warnings ?? []).map((text) => h("p", { class: "warned" }, text)),
    (dataset.notes ?? []).map(note),
    h("h3", {}, "Class balance"),
    balanceTable(dataset),
    h("h3", {}, "Sample records"),
    dataset.kind === "image" ? imageGrid(dataset.preview ?? []) : recordTable(dataset),
    h(
      "p",
      { class: "actions" },
      linkButton("Train on it", withQuery("/jobs/new", { spec: JSON.stringify(jobOn(dataset, models)) })),
      onDelete && actionButton("Delete", onDelete, { kind: "danger", confirm: "Click again to delete" }),
    ),
  );

/** The request of a job on the data set. */
const jobOn = ({ name, kind, train_per_class: counts }, models) => ({
  dataset: name,
  model: proposedModel(models, kind),
  optimizer: "ko",
  budget: { epochs: 10 },
  batch_size: batchSize(sum(counts)),
});

/** The first model that reads only this kind of data, else the first that reads it among others. */
function proposedModel(models, kind) {
  const readers = models.filter((model) => [model.reads, ...model.also_reads].includes(kind));
  return (readers.find((model) => !model.also_reads.length) ?? readers[0])?.name;
}

function balanceTable({ class_names: names, train_per_class: train, test_per_class: test }) {
  const classes = names.map((name, position) => ({ name, train: train[position], test: test[position] }));
  const largest = Math.max(...classes.map((row) => row.train + row.test));
  const share = (row) => progressBar((row.train + row.test) / largest, `Size of ${row.name}`);
  return table({
    label: "Class balance",
    columns: [
      { title: "Class", kind: "head", cell: (row) => row.name },
      { title: "", kind: "text", cell: (row) => h("span", { class: "cell-bar" }, share(row)) },
      { title: "Training", cell: (row) => integer(row.train) },
      { title: "Test", cell: (row) => integer(row.test) },
    ],
    rows: classes.slice(0, MAX_CLASSES),
    caption: classes.length > MAX_CLASSES ? `The first ${MAX_CLASSES} of ${integer(classes.length)} classes.` : null,
  });
}

const imageGrid = (records) =>
  h(
    "div",
    { class: "previews" },
    records.map(({ image, label }) => h("figure", {}, h("img", { src: image, alt: `Image of class ${label}` }), label)),
  );

function recordTable({ kind, columns, preview = [] }) {
  const values = (preview[0]?.values ?? []).map((_, position) => ({
    title: columns[position] ?? String(position + 1),
    cell: (record) => number(record.values[position]),
  }));
  const text = { title: "Text", kind: "wide", cell: (record) => record.text };
  return table({
    label: "Sample records",
    columns: [{ title: "Class", kind: "head", cell: (record) => record.label }, ...(kind === "text" ? [text] : values)],
    rows: preview.slice(0, MAX_RECORDS),
  });
}
