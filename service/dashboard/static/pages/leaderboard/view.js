// The elements of the leaderboard.

import { intervalBar, scaleOf } from "../../components/interval_bar.js";
import { code, facts, folded, linkButton, section } from "../../components/layout.js";
import { optimizerLabel } from "../../components/optimizer_label.js";
import { emptyState } from "../../components/states.js";
import { table } from "../../components/table.js";
import { h } from "../../lib/dom.js";
import { deviation, difference, interval, metricValue, number, pValue, title, words } from "../../lib/format.js";
import { styleOf } from "../../lib/styles.js";

const METRICS = ["test_accuracy", "test_loss", "val_accuracy", "val_loss"];
const ALPHA = 0.05;
const BRIEF = /budget|batch_size|device_kind|schedule\.name|precision|hidden/;
const SELECTED_ABOVE = ["dataset.name", "model.name"];

/** The drop-down lists; `select` gets the name and the value of a changed one. */
export function filtersView(catalog, selected, select) {
  const names = (entries) => entries.map(({ name }) => [name, name]);
  // A model of a library, which the catalog does not list, comes from the address.
  const withSelected = (entries, name) =>
    !name || entries.some((entry) => entry.name === name) ? entries : [...entries, { name }];
  const filter = (name, options) => {
    const control = h(
      "select",
      { id: `board-${name}`, onchange: () => select(name, control.value) },
      options.map(([value, text]) => h("option", { value }, text)),
    );
    control.value = selected[name];
    const label = name === "dataset" ? "Data set" : title(name);
    return h("div", { class: "field" }, h("label", { for: control.id }, label), control);
  };
  return h(
    "div",
    { class: "filters" },
    filter("dataset", names(catalog.datasets)),
    filter("model", names(withSelected(catalog.models, selected.model))),
    filter(
      "metric",
      METRICS.map((name) => [name, words(name)]),
    ),
  );
}

export function boardsView(boards, { dataset, model, metric }) {
  if (boards.length) return boards.map((board, position) => boardView(board, position + 1, metric));
  const link = linkButton("Compare optimizers", "/comparisons/new", "primary");
  const text = `No finished run of ${model} on ${dataset} has a ${words(metric)}.`;
  return h("div", { class: "part" }, emptyState("No finished runs", text, link));
}

export const errorView = (error, retry) =>
  h(
    "div",
    { class: "part" },
    emptyState(
      "The leaderboard could not be loaded",
      error.message,
      h("button", { type: "button", onclick: retry }, "Retry"),
    ),
  );

/** One setting: its main properties, the ranking, and the whole setting folded in. */
function boardView(board, position, metric) {
  return section(
    position === 1 ? "Setting with the most runs" : `Setting ${position}`,
    facts([["runs", board.runs], ...briefSetting(board.setting)]),
    standingsTable(board, position, metric),
    folded("Complete setting", code(board.setting)),
  );
}

const briefSetting = (setting) =>
  Object.entries(setting)
    .filter(([name, value]) => !SELECTED_ABOVE.includes(name) && BRIEF.test(name) && value !== null)
    .map(([name, value]) => [
      name
        .replace(/^(environment|budget|model\.params|model)\./, "")
        .replaceAll("_", " ")
        .replace(".name", ""),
      typeof value === "number" ? number(value) : [value].flat().join(", "),
    ]);

function standingsTable({ standings }, position, metric) {
  const scale = scaleOf(standings);
  const second = standings[1];
  const isDecided = Boolean(second) && second.p_behind !== null && second.p_behind < ALPHA;
  return table({
    label: `Ranking of setting ${position}`,
    isStrong: (row) => row.rank === 1 && isDecided,
    columns: [
      { title: "Rank", kind: "head", cell: (row) => String(row.rank) },
      { title: "Optimizer", kind: "text", cell: (row) => optimizerLabel(row.label, styleOf(row.optimizer.name)) },
      {
        title: "Seeds",
        cell: (row) => [String(row.n), row.diverged > 0 && h("span", { class: "why" }, ` (${row.diverged} diverged)`)],
      },
      { title: "Mean", cell: (row) => metricValue(row.mean, metric) },
      { title: "", kind: "text", cell: (row) => meanBar(row, scale, metric) },
      { title: "95 % interval", cell: (row) => interval(row.interval, metric) },
      { title: "SD", hint: "Standard deviation over seeds", cell: (row) => deviation(row.sd, metric) },
      { title: "Best", cell: (row) => metricValue(row.best, metric) },
      {
        title: "Difference from first",
        hint: "Mean paired difference on common seeds, with its 95 % interval",
        cell: (row) => differenceFromFirst(row, metric),
      },
      {
        title: "p",
        hint: "p value adjusted for all pairs of this setting",
        cell: (row) => (row.p_behind === null ? "" : pValue(row.p_behind)),
      },
    ],
    rows: standings,
  });
}

function meanBar(row, scale, metric) {
  const text = `${metricValue(row.mean, metric)}, interval ${interval(row.interval, metric)}`;
  return intervalBar(row, scale, styleOf(row.optimizer.name), text);
}

function differenceFromFirst({ behind_first: behind, interval_behind: ends }, metric) {
  if (behind === null) return "";
  return `${difference(behind, metric)} (${interval(ends, metric, difference)})`;
}
