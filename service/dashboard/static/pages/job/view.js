// The elements of a job's page other than curves: numbers, log, environment, files.

import { actionButton } from "../../components/buttons.js";
import { facts, numberTile, numbers, spacer } from "../../components/layout.js";
import { emptyState, loaded } from "../../components/states.js";
import { progressBar, statusChip } from "../../components/status.js";
import { table } from "../../components/table.js";
import { download, get } from "../../lib/api.js";
import { h } from "../../lib/dom.js";
import {
  ago,
  bytes,
  duration,
  metricValue,
  number,
  percent,
  reasonWords,
  shortId,
  timestamp,
  words,
} from "../../lib/format.js";
import { isFinalJob } from "../../lib/statuses.js";

const LIVE_METRICS = ["train_loss", "val_accuracy", "val_loss"];
const FINAL_METRICS = ["test_accuracy", "val_accuracy", "test_loss", "train_loss"];

const isKnown = (value) => value !== null && value !== undefined;

/** The progress of an unfinished job, or the result of a finished one, in large numbers. */
export function numbersView(job, curves) {
  const tiles = isFinalJob(job) ? resultTiles(job.summary) : progressTiles(job, curves);
  return tiles.length > 0 && numbers(tiles);
}

function progressTiles(job, curves) {
  const { step, total_steps: total } = job.progress;
  const isQueued = job.status === "queued";
  const bar = progressBar(total ? step / total : isQueued ? 0 : null, "Progress of the run");
  return [
    numberTile(
      isQueued ? "Queued" : "Progress",
      total ? percent(step / total) : number(step),
      total ? `${number(step)} of ${number(total)} steps` : "steps",
      bar,
    ),
    ...metricTiles(LIVE_METRICS, (name) => curves.last(name)),
  ];
}

function resultTiles(summary) {
  if (!summary) return [];
  const { target } = summary;
  return [
    ...metricTiles(FINAL_METRICS, (name) => summary.metrics[name]),
    numberTile("Training time", duration(summary.train_seconds), `${duration(summary.total_seconds)} in total`),
    numberTile("Steps", number(summary.steps), `${number(summary.epochs)} epochs`),
    target && numberTile("Target reached", number(target.step), `steps, ${duration(target.wall_seconds)}`),
  ].filter(Boolean);
}

const metricTiles = (names, valueOf) =>
  names
    .filter((name) => isKnown(valueOf(name)))
    .map((name) => numberTile(words(name), metricValue(valueOf(name), name)));

/** The events of a job as list items. */
export const logItems = (events) => (events.length ? events.map(logItem) : h("li", {}, "No events yet."));

function logItem({ isNote, status, reason, attempt, at, message }) {
  return h(
    "li",
    {},
    h(
      "div",
      { class: "row" },
      isNote ? h("span", { class: "chip" }, "note") : statusChip(status),
      reason && reason !== "completed" && h("span", { class: "why" }, reasonWords(reason)),
      spacer(),
      h("span", { class: "note" }, `attempt ${attempt}`),
      h("time", { class: "note", datetime: at }, timestamp(at)),
    ),
    message && h("pre", { class: "code" }, message.trim()),
  );
}

/** Versions, device and data of a finished run. */
export function environmentView(job) {
  const recorded = Object.entries(job.environment ?? {});
  if (!recorded.length) return noEnvironment(job);
  const { parameters, memory } = job.summary ?? {};
  return facts([
    ...recorded.map(([name, value]) => [words(name), value === null ? null : String(value)]),
    ["worker", job.worker],
    ["parameters", isKnown(parameters) && number(parameters)],
    ["peak memory", memory && bytes(memory.peak_bytes)],
    ["optimizer state", memory && bytes(memory.optimizer_state_bytes)],
  ]);
}

function noEnvironment(job) {
  if (isFinalJob(job))
    return emptyState("Not recorded", "The job ended before a worker recorded versions, device and data.");
  const worker = job.worker ? ` Running on ${job.worker}.` : "";
  return emptyState("Not recorded yet", `Versions, device and data are recorded when the run ends.${worker}`);
}

/** The job's files with buttons to download them. */
export const filesView = (id, signal) =>
  loaded(get(`/v1/jobs/${id}/artifacts`, {}, signal), ({ artifacts }) =>
    artifacts.length ? fileTable(id, artifacts) : emptyState("No files yet"),
  );

function fileTable(id, artifacts) {
  const save = ({ name }) => download(`/v1/jobs/${id}/artifacts/${encodeURIComponent(name)}`, `${shortId(id)}-${name}`);
  return table({
    label: "Files",
    columns: [
      { title: "File", kind: "head", cell: (file) => (file.version ? `${file.name}: ${file.version}` : file.name) },
      { title: "Size", cell: (file) => file.size_bytes !== null && bytes(file.size_bytes) },
      { title: "Created", cell: (file) => file.created_at && ago(file.created_at) },
      {
        title: "",
        cell: (file) => actionButton("Download", () => save(file), { kind: "small", label: `Download ${file.name}` }),
      },
    ],
    rows: artifacts,
  });
}
