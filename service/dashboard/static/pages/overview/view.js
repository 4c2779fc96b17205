// The elements of the overview.

import { linkButton, numberTile, pageHead, section, spacer } from "../../components/layout.js";
import { jobOptimizer, optimizerLabel } from "../../components/optimizer_label.js";
import { emptyState, note } from "../../components/states.js";
import { progressBar, statusChip } from "../../components/status.js";
import { table } from "../../components/table.js";
import { h, patch } from "../../lib/dom.js";
import { ago, bytes, counted, duration, integer, shortId } from "../../lib/format.js";
import { styleOf } from "../../lib/styles.js";

const SENTENCES = 2; // of a verdict
const SEPARATOR = " \u00b7 ";

export class OverviewView {
  #numbers = h("dl", { class: "numbers" });
  #comparisons = h("div");
  #jobs = h("div");
  #workers = h("div");
  #queue = h("div");

  constructor(live) {
    this.live = live;
  }

  elements() {
    const column = (...sections) => h("div", { class: "page" }, sections);
    return [
      pageHead("Overview", {}, this.live),
      this.#numbers,
      h(
        "div",
        { class: "columns" },
        column(section("Latest comparisons", this.#comparisons), section("Latest jobs", this.#jobs)),
        column(section("Workers", this.#workers), section("Queue by user", this.#queue)),
      ),
    ];
  }

  draw({ overview, workers, jobs }) {
    patch(this.#numbers, numberTiles(overview));
    patch(this.#comparisons, overview.comparisons.length ? comparisonList(overview.comparisons) : noComparisons());
    patch(this.#jobs, jobs.length ? jobTable(jobs) : noJobs());
    patch(this.#queue, overview.queue.length ? queueTable(overview.queue) : note("No jobs are queued or running."));
    this.drawWorkers(workers);
  }

  drawWorkers(workers) {
    const noWorkers = () =>
      emptyState("No workers in the last 24 hours", "Jobs stay queued until a worker starts: kotrain worker.");
    patch(this.#workers, workers.length ? h("ul", { class: "list" }, workers.map(workerItem)) : noWorkers());
  }
}

function numberTiles({ jobs, ended, slots }) {
  const tile = (title, count, status, remark) =>
    numberTile(title, h("a", { href: `/jobs?status=${status}` }, integer(count)), remark);
  return [
    tile("Running", jobs.running, "running"),
    tile("Queued", jobs.queued, "queued"),
    numberTile("Slots", `${slots.busy} of ${slots.total}`, "busy"),
    tile("Succeeded", ended.succeeded, "succeeded", "in 24 h"),
    tile("Failed", ended.failed, "failed", "in 24 h"),
  ];
}

const noComparisons = () =>
  emptyState(
    "No comparisons yet",
    "A comparison plans and trains the runs, and reports, with confidence intervals and p values, which optimizer is better.",
    linkButton("Compare optimizers", "/comparisons/new", "primary"),
  );

const noJobs = () =>
  emptyState("No jobs yet", "Submit a job and watch its curves live.", linkButton("New job", "/jobs/new", "primary"));

const comparisonList = (rows) => h("ul", { class: "list" }, rows.map(comparisonItem));

function comparisonItem(row) {
  const share = row.jobs ? row.ended / row.jobs : 0;
  return h(
    "li",
    { dataset: { key: row.id } },
    h(
      "div",
      { class: "row" },
      h("a", { href: `/comparisons/${row.id}` }, row.name),
      statusChip(row.status),
      spacer(),
      h("span", { class: "note" }, `${row.user}, ${ago(row.finished_at ?? row.created_at)}`),
    ),
    row.status === "running" &&
      h(
        "div",
        { class: "row" },
        h("span", { class: "cell-bar" }, progressBar(share, `Progress of ${row.name}`)),
        h("span", { class: "note" }, `${row.ended} of ${counted(row.jobs, "run")}`),
      ),
    row.verdict.slice(0, SENTENCES).map((sentence) => h("p", {}, sentence)),
  );
}

const jobTable = (jobs) =>
  table({
    label: "Latest jobs",
    columns: [
      { title: "Job", kind: "head", cell: (job) => h("a", { href: `/jobs/${job.id}` }, shortId(job.id)) },
      { title: "Optimizer", kind: "text", cell: jobOptimizer },
      { title: "Data set, model", kind: "wrapped", cell: ({ spec }) => `${spec.dataset.name}, ${spec.model.name}` },
      { title: "Status", kind: "text", cell: (job) => statusChip(job.status) },
      { title: "Submitted", cell: (job) => ago(job.created_at) },
    ],
    rows: jobs,
    rowKey: (job) => job.id,
  });

const queueTable = (rows) =>
  table({
    label: "Queue by user",
    columns: [
      {
        title: "User",
        kind: "head",
        cell: ({ user }) => h("a", { href: `/jobs?user=${encodeURIComponent(user)}` }, user),
      },
      { title: "Running", cell: (row) => integer(row.running) },
      { title: "Queued", cell: (row) => integer(row.queued) },
    ],
    rows,
    rowKey: (row) => row.user,
  });

function workerItem(worker) {
  const isUp = worker.status === "up";
  const state = isUp
    ? `${worker.running.length} of ${counted(worker.slots, "slot")} busy`
    : `last seen ${ago(worker.heartbeat_at)}`;
  const facts = [
    ...worker.devices.map((device) => `${device.name}, ${bytes(device.memory_bytes)}`),
    worker.torch && `torch ${worker.torch}`,
    isUp && `up ${duration((Date.now() - Date.parse(worker.started_at)) / 1000)}`,
  ];
  return h(
    "li",
    { dataset: { key: worker.id } },
    h(
      "div",
      { class: "row" },
      h("strong", {}, worker.host),
      statusChip(worker.status),
      spacer(),
      h("span", { class: "note" }, state),
    ),
    note(facts.filter(Boolean).join(SEPARATOR)),
    worker.running.map(runningJob),
  );
}

function runningJob({ job, optimizer, optimizer_label: label, dataset, model, user, step, total_steps: total }) {
  return h(
    "div",
    { class: "row", dataset: { key: job } },
    h("a", { href: `/jobs/${job}` }, shortId(job)),
    optimizerLabel(label, styleOf(optimizer)),
    h("span", { class: "note" }, `${dataset}, ${model}, ${user}`),
    spacer(),
    h("span", { class: "cell-bar" }, progressBar(total ? step / total : null, `Progress of ${shortId(job)}`)),
  );
}
