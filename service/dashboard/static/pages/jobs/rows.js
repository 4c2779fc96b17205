// The rows of the list of jobs.

import { time } from "../../components/layout.js";
import { jobOptimizer } from "../../components/optimizer_label.js";
import { jobStatus, progressBar } from "../../components/status.js";
import { tableRow } from "../../components/table.js";
import { h, patch } from "../../lib/dom.js";
import { ago, duration, metricValue, number, percent, shortId, words } from "../../lib/format.js";

const RESULTS = ["test_accuracy", "val_accuracy", "test_loss", "val_loss"]; // in order of preference

const COLUMNS = [
  { title: "Status", kind: "text", cell: jobStatus },
  { title: "Optimizer", kind: "text", cell: (job) => [jobOptimizer(job), job.spec.evaluate_test === false && untested()] },
  { title: "Learning rate", cell: (job) => number(job.spec.optimizer.params.lr) },
  { title: "Data set, model", kind: "wrapped", cell: ({ spec }) => `${spec.dataset.name}, ${spec.model.name}` },
  { title: "Seed", cell: (job) => String(job.spec.seed) },
  { title: "Progress", kind: "text", cell: progress },
  {
    title: "Result",
    hint: "Score on the test set; val.: on validation data, if the test set was not read",
    cell: result,
  },
  { title: "Time", hint: "Training time", cell: ({ summary }) => summary && duration(summary.train_seconds) },
  { title: "User", kind: "text", cell: (job) => job.user },
  { title: "Submitted", sort: "time", cell: (job) => time(job.created_at, ago(job.created_at)) },
];

/** Marks the trials of a tuning, and other jobs that do not read the test set. */
const untested = () => h("small", { class: "why", title: "Does not read the test set: a trial of a tuning" }, " no test");

function progress({ id, status, progress: { step, total_steps: total } }) {
  if (status === "queued") return "";
  if (status !== "running") return h("span", { class: "why" }, `${number(step)} steps`);
  const bar = progressBar(total ? step / total : null, `Progress of ${shortId(id)}`);
  const text = total ? percent(step / total) : step ? number(step) : "starting";
  return h("span", { class: "cell-bar" }, bar, text);
}

function result({ summary }) {
  const metrics = summary?.metrics ?? {};
  const name = RESULTS.find((metric) => typeof metrics[metric] === "number");
  if (!name) return "";
  const remark = !name.startsWith("test") && h("small", { class: "why" }, " val.");
  return h("span", { title: words(name) }, metricValue(metrics[name], name), remark);
}

/** The body of the table. The row elements of jobs that stay are kept, and only changed cells are redrawn. */
export class JobRows {
  #shown = new Map(); // job and row by id

  /** `onSelect` gets a job's id and whether it is selected. */
  constructor(onSelect) {
    this.body = h("tbody");
    const cell = ({ id, name, archived_at: archived }) => {
      const link = h("a", { href: `/jobs/${id}`, title: name }, shortId(id));
      return h("span", { class: "pick" }, checkbox(id, onSelect), link, archived && h("small", { class: "why" }, "archived"));
    };
    this.columns = [{ title: "Job", kind: "head", cell }, ...COLUMNS];
  }

  /** Show these jobs in this order. */
  show(jobs) {
    const before = this.#shown;
    this.#shown = new Map();
    for (const job of jobs) {
      const old = before.get(job.id);
      this.#shown.set(job.id, { job, row: old?.row ?? this.#row(job) });
      if (old && JSON.stringify(old.job) !== JSON.stringify(job)) this.draw(job.id);
    }
    patch(
      this.body,
      Array.from(this.#shown.values(), ({ row }) => row),
    );
    for (const element of this.body.querySelectorAll("time")) patch(element, ago(element.dateTime));
  }

  /** Redraw one job. */
  draw(id) {
    const { job, row } = this.#shown.get(id);
    patch(row, ...this.#row(job).childNodes);
  }

  /** The job with this id, which may be changed and redrawn; undefined if it is not shown. */
  find(id) {
    return this.#shown.get(id)?.job;
  }

  /** Check the boxes of the selected jobs. */
  mark(selected) {
    for (const box of this.body.querySelectorAll("input")) box.checked = selected.has(box.closest("tr").dataset.key);
  }

  #row(job) {
    return tableRow({ columns: this.columns, row: job, rowKey: ({ id }) => id });
  }
}

const checkbox = (id, onSelect) =>
  h("input", {
    type: "checkbox",
    "aria-label": `Select job ${shortId(id)}`,
    onchange: (event) => onSelect(id, event.target.checked),
  });
