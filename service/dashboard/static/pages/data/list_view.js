// The lists of data sets.

import { emptyState } from "../../components/states.js";
import { table } from "../../components/table.js";
import { h } from "../../lib/dom.js";
import { ago, integer } from "../../lib/format.js";

/** Uploaded and built-in data sets; `onShow` gets the click event and the name of an uploaded one. */
export function listView(datasets, onShow) {
  const uploaded = datasets.filter((dataset) => dataset.own);
  const builtIn = datasets.filter((dataset) => !dataset.own);
  return [
    uploaded.length
      ? datasetTable("Uploaded data sets", uploaded, onShow)
      : emptyState(
          "No uploaded data sets yet",
          "Upload images, texts or a table below to create a data set for training.",
        ),
    h("div", { class: "space" }),
    datasetTable("Built-in data sets", builtIn, onShow),
  ];
}

function datasetTable(caption, rows, onShow) {
  const link = ({ name }) =>
    h("a", { href: `/data?show=${encodeURIComponent(name)}`, onclick: (event) => onShow(event, name) }, name);
  return table({
    caption,
    columns: [
      { title: "Name", kind: "head", cell: (dataset) => (dataset.own ? link(dataset) : dataset.name) },
      { title: "Description", kind: "wide", cell: (dataset) => dataset.title },
      { title: "Classes", cell: (dataset) => integer(dataset.classes) },
      {
        title: "Training records",
        cell: ({ records }) => records !== null && records !== undefined && integer(records),
      },
      { title: "Available", kind: "text", cell: availability },
      rows.some((dataset) => dataset.own) && {
        title: "Owner",
        kind: "text",
        cell: (dataset) => `${dataset.owner}, ${ago(dataset.created_at)}`,
      },
    ],
    rows,
  });
}

const availability = ({ present, fetch }) =>
  present ? "yes" : h("span", { class: "why", title: fetch }, ["no: ", h("code", {}, fetch)]);
