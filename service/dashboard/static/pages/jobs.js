// All jobs: found, followed, cancelled and run again.

import { get, post } from "../api.js";
import { debounced, fill, h, throttled } from "../dom.js";
import { ago, duration, grouped, many, measured, number, optimizerName, shortId } from "../format.js";
import { follow } from "../live.js";
import { loadLooks, lookOf } from "../looks.js";
import { action, bar, empty, jobChip, named, table, toast } from "../parts.js";

const PAGE = 100;
const STATUSES = ["queued", "running", "succeeded", "failed", "cancelled"];
const FILTERS = ["status", "dataset", "model", "optimizer", "user", "tag", "search", "comparison"];

export async function mount(root, { user, query, keepQuery, signal }) {
  const [catalog] = await Promise.all([get("/v1/catalog", {}, signal), loadLooks(signal)]);
  const filter = Object.fromEntries(FILTERS.map((name) => [name, query.get(name) ?? ""]));
  let sort = query.get("sort") ?? "newest";
  let jobs = [];
  let next = null;
  let counts = null;
  let error = null;
  const chosen = new Set();

  // --- head and filters ---
  const live = h("span", { class: "live" }, "connecting");
  const picks = h("div", { class: "picks", role: "group", "aria-label": "Status" });
  const list = h("div", { class: "part" });
  const more = h("div", { class: "actions" });
  const selection = h("div", { class: "select-bar" });

  function pick(title, name, options) {
    const id = `filter-${name}`;
    const field = h(
      "select",
      { id, onchange: () => set(name, field.value) },
      h("option", { value: "" }, "any"),
      options.map((value) => h("option", { value }, value)),
    );
    field.value = options.includes(filter[name]) ? filter[name] : "";
    return h("div", { class: "field" }, h("label", { for: id }, title), field);
  }

  function typed(title, name, hint) {
    const id = `filter-${name}`;
    const field = h("input", {
      id,
      type: "search",
      value: filter[name],
      placeholder: hint,
      "data-search": name === "search",
      oninput: debounced(() => set(name, field.value.trim()), 250),
    });
    return h("div", { class: `field ${name}` }, h("label", { for: id }, title), field);
  }

  function set(name, value) {
    filter[name] = value;
    keepQuery({ [name]: value });
    chosen.clear();
    load();
  }

  function drawPicks() {
    const all = counts ? STATUSES.reduce((sum, status) => sum + (counts[status] ?? 0), 0) : null;
    const one = (value, title, count) =>
      h(
        "button",
        { type: "button", "aria-pressed": filter.status === value, onclick: () => set("status", value) },
        title,
        count !== null && count !== undefined ? ` ${grouped(count)}` : "",
      );
    fill(
      picks,
      one("", "all", all),
      STATUSES.map((status) => one(status, status, counts?.[status])),
    );
  }

  // --- the list ---
  const columns = [
    {
      title: "Job",
      kind: "head",
      cell: (job) => h("span", { class: "pick" }, checkbox(job), h("a", { href: `/jobs/${job.id}` }, shortId(job.id))),
    },
    { title: "Status", kind: "text", cell: jobChip },
    {
      title: "Optimizer",
      kind: "text",
      cell: (job) => named(optimizerName(job.spec.optimizer), lookOf(job.spec.optimizer.name)),
    },
    { title: "Learning rate", cell: (job) => number(job.spec.optimizer.params.lr) },
    { title: "Data set, model", kind: "text", cell: (job) => `${job.spec.dataset.name}, ${job.spec.model.name}` },
    { title: "Seed", cell: (job) => String(job.spec.seed) },
    { title: "Progress", kind: "text", cell: progress },
    { title: "Result", hint: "Accuracy on the test set, else on validation data", cell: result },
    { title: "Time", hint: "Training time", cell: (job) => (job.summary ? duration(job.summary.train_seconds) : "") },
    { title: "User", kind: "text", cell: (job) => job.user },
    {
      title: "Submitted",
      sort: "time",
      cell: (job) => h("time", { datetime: job.created_at, title: job.created_at }, ago(job.created_at)),
    },
  ];

  function checkbox(job) {
    const box = h("input", {
      type: "checkbox",
      "aria-label": `Choose job ${shortId(job.id)}`,
      onchange: () => {
        chosen[box.checked ? "add" : "delete"](job.id);
        drawSelection();
      },
    });
    box.checked = chosen.has(job.id);
    return box;
  }

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
    return name ? h("span", { title: name }, measured(metrics[name], name)) : "";
  }

  function draw() {
    drawPicks();
    drawSelection();
    const isFiltered = FILTERS.some((name) => filter[name]);
    if (error)
      fill(
        list,
        empty("The list could not be loaded", error, h("button", { type: "button", onclick: load }, "Try again")),
      );
    else if (jobs.length)
      fill(
        list,
        table({
          label: "Jobs",
          columns,
          rows: jobs,
          rowKey: (job) => job.id,
          sorted: { by: "time", descending: sort === "newest" },
          onSort: turn,
        }),
      );
    else if (isFiltered)
      fill(
        list,
        empty(
          "No job is like that",
          "Loosen a filter to see more.",
          h("button", { type: "button", onclick: clear }, "Clear all filters"),
        ),
      );
    else
      fill(
        list,
        empty(
          "No jobs yet",
          "Submit one, and watch its curves grow.",
          h("a", { class: "button primary", href: "/jobs/new" }, "New job"),
        ),
      );
    fill(
      more,
      next && action("Show more", () => load({ isMore: true })),
      jobs.length > 0 && h("span", { class: "note" }, `${many(jobs.length, "job")} shown`),
    );
  }

  function turn() {
    sort = sort === "newest" ? "oldest" : "newest";
    keepQuery({ sort: sort === "newest" ? null : sort });
    load();
  }

  function clear() {
    for (const name of FILTERS) filter[name] = "";
    keepQuery(filter);
    for (const field of root.querySelectorAll(".filters input, .filters select")) field.value = "";
    load();
  }

  // --- bulk actions ---
  let selected = null;
  function drawSelection() {
    const shown = jobs.map((job) => job.id);
    const state = `${shown} ${[...chosen]}`;
    if (state === selected) return; // a button that asks whether one is sure must outlive the next redraw
    selected = state;
    const every = h("input", {
      type: "checkbox",
      onchange: () => {
        for (const id of shown) chosen[every.checked ? "add" : "delete"](id);
        draw();
      },
    });
    every.checked = shown.length > 0 && shown.every((id) => chosen.has(id));
    every.indeterminate = !every.checked && chosen.size > 0;
    fill(
      selection,
      h("label", { class: "row" }, every, chosen.size ? `${many(chosen.size, "job")} chosen` : "Choose all shown"),
      chosen.size > 0 && [
        action("Cancel them", () => act("cancel"), { kind: "small danger", confirm: `Really cancel ${chosen.size}?` }),
        action("Retry them", () => act("retry"), { kind: "small" }),
      ],
    );
  }

  async function act(what) {
    const ids = [...chosen];
    let done = 0;
    const refused = [];
    for (let start = 0; start < ids.length; start += 500) {
      const answer = await post("/v1/jobs/actions", { action: what, jobs: ids.slice(start, start + 500) });
      for (const outcome of answer.outcomes) outcome.done ? (done += 1) : refused.push(outcome);
    }
    const verb = what === "cancel" ? "cancelled or asked to stop" : "submitted again";
    toast(
      `${many(done, "job")} ${verb}${refused.length ? `; ${refused.length} left alone: ${refused[0].detail}` : "."}`,
      refused.length && !done ? "error" : "note",
    );
    chosen.clear();
    await load();
  }

  // --- data ---
  let asked = 0;
  async function load({ isMore = false } = {}) {
    const mine = (asked += 1);
    const asks = { ...filter, sort: sort === "newest" ? "" : sort };
    try {
      const [page, found] = await Promise.all([
        get("/v1/jobs", { ...asks, limit: PAGE, after: isMore ? next : "" }, signal),
        get("/v1/jobs/counts", { ...filter, status: "" }, signal),
      ]);
      if (mine !== asked) return;
      jobs = isMore ? [...jobs, ...page.data] : page.data;
      next = page.next;
      counts = found.counts;
      error = null;
    } catch (problem) {
      if (problem.name === "AbortError" || mine !== asked) return;
      if (problem.isAway) {
        setTimeout(() => signal.aborted || load(), 2000);
        if (jobs.length) return;
      }
      error = problem.message;
    }
    draw();
  }

  fill(
    root,
    h(
      "div",
      { class: "head" },
      h("h1", {}, "Jobs"),
      live,
      h("span", { class: "space" }),
      h("button", { type: "button", onclick: () => mine() }, "Only mine"),
    ),
    h(
      "div",
      { class: "filters" },
      typed("Search", "search", "ko, digits, ada, a tag\u2019s value"),
      pick(
        "Data set",
        "dataset",
        catalog.datasets.map((entry) => entry.name),
      ),
      pick(
        "Model",
        "model",
        catalog.models.map((entry) => entry.name),
      ),
      pick(
        "Optimizer",
        "optimizer",
        catalog.optimizers.map((entry) => entry.name),
      ),
      typed("User", "user", "name"),
      typed("Tag", "tag", "key:value"),
    ),
    picks,
    selection,
    list,
    more,
  );

  function mine() {
    root.querySelector("#filter-user").value = filter.user ? "" : user.user;
    set("user", filter.user ? "" : user.user);
  }

  await load();

  // --- live: rows that are shown change in place; new jobs come with the next look at the list ---
  const changed = throttled(() => load(), 2000, signal);
  const redraw = throttled(draw, 500, signal);
  follow("/v1/events", {
    signal,
    onOpen: () => load(),
    onState: (isLive) => {
      live.classList.toggle("on", isLive);
      live.textContent = isLive ? "live" : "reconnecting";
    },
    onEvent: ({ type, data }) => {
      if (type === "metric") {
        for (const { job: id, step, total_steps: total } of data.progress) {
          const job = jobs.find((one) => one.id === id);
          if (job) job.progress = { step, total_steps: total };
        }
        redraw();
      } else if (type === "status" && data.job) {
        if (jobs.length <= PAGE) changed();
        else {
          const job = jobs.find((one) => one.id === data.job);
          if (job) Object.assign(job, { status: data.status, reason: data.reason });
          redraw();
        }
      }
    },
  }).catch((problem) => toast(problem.message, "error"));
}
