// The rows of the list of jobs.

import { h, renew } from "../../lib/dom.js";
import { ago, duration, measured, number, shortId, words } from "../../lib/format.js";
import { bar, jobChip, optimizer, tableRow } from "../../components/parts.js";

const COLUMNS = [
  { title: "Status", kind: "text", cell: jobChip },
  {
    title: "Optimizer",
    kind: "text",
    cell: (job) => optimizer(job.spec),
  },
  { title: "Learning rate", cell: (job) => number(job.spec.optimizer.params.lr) },
  { title: "Data set, model", kind: "text", cell: (job) => `${job.spec.dataset.name}, ${job.spec.model.name}` },
  { title: "Seed", cell: (job) => String(job.spec.seed) },
  { title: "Progress", kind: "text", cell: progress },
  {
    title: "Result",
    hint: "Accuracy on the test set; val.: on validation data, where the test set was not read",
    cell: result,
  },
  { title: "Time", hint: "Training time", cell: (job) => (job.summary ? duration(job.summary.train_seconds) : "") },
  { title: "User", kind: "text", cell: (job) => job.user },
  {
    title: "Submitted",
    sort: "time",
    cell: (job) => h("time", { datetime: job.created_at, title: job.created_at }, ago(job.created_at)),
  },
];

function progress(job) {
  const { step, total_steps: total } = job.progress;
  if (job.status === "running")
    return h(
      "span",
      { class: "cell-bar" },
      bar(total ? step / total : null, `progress of ${shortId(job.id)}`),
      total ? `${Math.floor((100 * step) / total)} %` : step ? number(step) : "starts",
    );
  return job.status === "queued" ? "" : h("span", { class: "why" }, `${number(step)} steps`);
}

function result(job) {
  const metrics = job.summary?.metrics ?? {};
  const name = ["test_accuracy", "val_accuracy", "test_loss", "val_loss"].find(
    (one) => typeof metrics[one] === "number",
  );
  const isTest = name?.startsWith("test");
  return name
    ? h("span", { title: words(name) }, measured(metrics[name], name), !isTest && h("small", { class: "why" }, " val."))
    : "";
}

/** The rows of the table: those of jobs that stay are the same elements, in which only what changed is drawn anew. */
export class Rows {
  #drawn = new Map();

  /** `onChoose` gets a job's id and whether it is chosen. */
  constructor(onChoose) {
    this.body = h("tbody");
    this.columns = [
      {
        title: "Job",
        kind: "head",
        cell: (job) =>
          h("span", { class: "pick" }, box(job.id, onChoose), h("a", { href: `/jobs/${job.id}` }, shortId(job.id))),
      },
      ...COLUMNS,
    ];
  }

  /** These jobs and no others, in this order. */
  show(jobs) {
    const before = this.#drawn;
    this.#drawn = new Map();
    for (const job of jobs) {
      const there = before.get(job.id);
      this.#drawn.set(job.id, { job, row: there?.row ?? this.#made(job) });
      if (there && JSON.stringify(there.job) !== JSON.stringify(job)) this.draw(job.id);
    }
    renew(
      this.body,
      [...this.#drawn.values()].map(({ row }) => row),
    );
    for (const time of this.body.querySelectorAll("time")) renew(time, ago(time.dateTime));
  }

  /** One job as it is by now. */
  draw(id) {
    const { job, row } = this.#drawn.get(id);
    renew(row, ...this.#made(job).childNodes);
  }

  /** The shown job of this id, which may be changed and drawn. */
  find(id) {
    return this.#drawn.get(id)?.job;
  }

  mark(chosen) {
    for (const one of this.body.querySelectorAll("input")) one.checked = chosen.has(one.closest("tr").dataset.key);
  }

  #made(job) {
    return tableRow({ columns: this.columns, row: job, rowKey: (one) => one.id });
  }
}

function box(id, onChoose) {
  return h("input", {
    type: "checkbox",
    "aria-label": `Choose job ${shortId(id)}`,
    onchange: (event) => onChoose(id, event.target.checked),
  });
}
