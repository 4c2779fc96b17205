// What is running, who waits, and which optimizer wins.

import { get } from "../../lib/api.js";
import { fill, h, renew } from "../../lib/dom.js";
import { ago, bytes, duration, grouped, many, shortId } from "../../lib/format.js";
import { follow } from "../../lib/event_stream.js";
import { loadLooks, lookOf } from "../../lib/styles.js";
import { refresher } from "../../lib/refresher.js";
import { bar, chip, empty, liveSign, named, optimizer, section, table, toast } from "../../components/parts.js";

const AGAIN = 10_000; // heartbeats of workers are no events

export async function mount(root, { signal }) {
  await loadLooks(signal);
  let overview;
  let workers;
  let latest;
  const { live, onState } = liveSign();
  const numbers = h("dl", { class: "numbers" });
  const verdicts = h("div");
  const machines = h("div");
  const queue = h("div");
  const jobs = h("div");

  const ask = () =>
    Promise.all([
      get("/v1/overview", {}, signal),
      get("/v1/workers", {}, signal),
      get("/v1/jobs", { limit: 8 }, signal),
    ]);

  function show(answers) {
    [overview, { workers }, { data: latest }] = answers;
    draw();
  }

  function draw() {
    drawNumbers();
    drawWorkers();
    renew(
      verdicts,
      overview.comparisons.length
        ? h("ul", { class: "list" }, overview.comparisons.map(comparison))
        : empty(
            "Nothing compared yet",
            "Ask which of two optimizers is better: kotrain plans the runs, trains them and says how sure one can be.",
            h("a", { class: "button primary", href: "/comparisons/new" }, "Compare optimizers"),
          ),
    );
    renew(queue, overview.queue.length ? waits() : h("p", { class: "note" }, "Nobody waits."));
    renew(
      jobs,
      latest.length
        ? newest()
        : empty(
            "No jobs yet",
            "Submit one, and watch its curves grow.",
            h("a", { class: "button primary", href: "/jobs/new" }, "New job"),
          ),
    );
  }

  function drawNumbers() {
    const one = (title, value, more, href) =>
      h(
        "div",
        {},
        h("dt", {}, title),
        h("dd", {}, href ? h("a", { href }, value) : value, more && h("small", {}, ` ${more}`)),
      );
    const { jobs: counts, ended, slots } = overview;
    renew(
      numbers,
      one("Running", grouped(counts.running), null, "/jobs?status=running"),
      one("Waiting", grouped(counts.queued), null, "/jobs?status=queued"),
      one("Slots", `${slots.busy} of ${slots.total}`, "busy"),
      one("Succeeded", grouped(ended.succeeded), "in 24 h", "/jobs?status=succeeded"),
      one("Failed", grouped(ended.failed), "in 24 h", "/jobs?status=failed"),
    );
  }

  function drawWorkers() {
    renew(
      machines,
      workers.length
        ? h("ul", { class: "list" }, workers.map(worker))
        : empty("No worker has been seen today", "Jobs wait until one starts: kotrain worker."),
    );
  }

  const waits = () =>
    table({
      label: "Who runs and waits",
      columns: [
        {
          title: "User",
          kind: "head",
          cell: (row) => h("a", { href: `/jobs?user=${encodeURIComponent(row.user)}` }, row.user),
        },
        { title: "Running", cell: (row) => grouped(row.running) },
        { title: "Waiting", cell: (row) => grouped(row.queued) },
      ],
      rows: overview.queue,
      rowKey: (row) => row.user,
    });

  const newest = () =>
    table({
      label: "Newest jobs",
      columns: [
        { title: "Job", kind: "head", cell: (job) => h("a", { href: `/jobs/${job.id}` }, shortId(job.id)) },
        {
          title: "Optimizer",
          kind: "text",
          cell: (job) => optimizer(job.spec),
        },
        { title: "Data set", kind: "text", cell: (job) => `${job.spec.dataset.name}, ${job.spec.model.name}` },
        { title: "Status", kind: "text", cell: (job) => chip(job.status) },
        { title: "Submitted", cell: (job) => ago(job.created_at) },
      ],
      rows: latest,
      rowKey: (job) => job.id,
    });

  function comparison(row) {
    const share = row.jobs ? row.ended / row.jobs : 0;
    return h(
      "li",
      { dataset: { key: row.id } },
      h(
        "div",
        { class: "row" },
        h("a", { href: `/comparisons/${row.id}` }, row.name),
        chip(row.status),
        h("span", { class: "space" }),
        h("span", { class: "note" }, `${row.user}, ${ago(row.finished_at ?? row.created_at)}`),
      ),
      row.status === "running" &&
        h(
          "div",
          { class: "row" },
          h("span", { class: "cell-bar" }, bar(share, `progress of ${row.name}`)),
          h("span", { class: "note" }, `${row.ended} of ${many(row.jobs, "run")}`),
        ),
      row.verdict.slice(0, 2).map((sentence) => h("p", {}, sentence)),
    );
  }

  function worker(row) {
    return h(
      "li",
      { dataset: { key: row.id } },
      h(
        "div",
        { class: "row" },
        h("strong", {}, row.host),
        chip(row.status),
        h("span", { class: "space" }),
        h(
          "span",
          { class: "note" },
          row.status === "up"
            ? `${row.running.length} of ${many(row.slots, "slot")} busy`
            : `last seen ${ago(row.heartbeat_at)}`,
        ),
      ),
      h(
        "p",
        { class: "note" },
        row.devices.map((device) => `${device.name}, ${bytes(device.memory_bytes)}`).join(" \u00b7 "),
        row.torch && ` \u00b7 torch ${row.torch}`,
        row.status === "up" && ` \u00b7 up ${duration((Date.now() - Date.parse(row.started_at)) / 1000)}`,
      ),
      row.running.map((job) =>
        h(
          "div",
          { class: "row", dataset: { key: job.job } },
          h("a", { href: `/jobs/${job.job}` }, shortId(job.job)),
          named(job.optimizer, lookOf(job.optimizer)),
          h("span", { class: "note" }, `${job.dataset}, ${job.model}, ${job.user}`),
          h("span", { class: "space" }),
          h(
            "span",
            { class: "cell-bar" },
            bar(job.total_steps ? job.step / job.total_steps : null, `progress of ${shortId(job.job)}`),
          ),
        ),
      ),
    );
  }

  fill(
    root,
    h("div", { class: "head" }, h("h1", {}, "Overview"), live),
    numbers,
    h(
      "div",
      { class: "columns" },
      h("div", { class: "page" }, section("Newest comparisons", verdicts), section("Newest jobs", jobs)),
      h("div", { class: "page" }, section("Workers", machines), section("Who runs and waits", queue)),
    ),
  );
  show(await ask());

  const refresh = refresher(ask, show, { milliseconds: 2000, signal });
  const timer = setInterval(() => document.hidden || refresh(), AGAIN);
  signal.addEventListener("abort", () => clearInterval(timer));
  follow("/v1/events", {
    signal,
    onState,
    onOpen: refresh,
    onEvent: ({ type, data }) => {
      if (type === "status") refresh();
      else if (type === "metric") {
        for (const { job, step, total_steps: total } of data.progress) {
          const found = workers.flatMap((one) => one.running).find((one) => one.job === job);
          if (found) Object.assign(found, { step, total_steps: total });
        }
        drawWorkers();
      }
    },
  }).catch((error) => toast(error.message, "error"));
}
