// All jobs: found, followed, cancelled and run again.

import { get, post } from "../api.js";
import { debounced, fill, h, renew, throttled } from "../dom.js";
import { ago, duration, grouped, many, measured, number, shortId } from "../format.js";
import { beginning } from "../lists.js";
import { follow } from "../live.js";
import { loadLooks } from "../looks.js";
import { AGAIN } from "../refresh.js";
import { action, bar, empty, jobChip, liveSign, optimizer, table, tableRow, toast } from "../parts.js";

const PAGE = 100;
const MOST_AT_ONCE = 500; // that the API takes
const LONG = 500; // rows; such a list is looked at again more seldom
const STATUSES = ["queued", "running", "succeeded", "failed", "cancelled"];
const FINAL = ["succeeded", "failed", "cancelled"];
const FILTERS = ["status", "dataset", "model", "optimizer", "user", "tag", "search", "comparison"];

// --- a row ---

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
  { title: "Result", hint: "Accuracy on the test set, else on validation data", cell: result },
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
    ? h("span", {}, measured(metrics[name], name), !isTest && h("small", { class: "why" }, " validation"))
    : "";
}

/** The rows of the table: those of jobs that stay are the same elements, in which only what changed is drawn anew. */
class Rows {
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

// --- filters ---

/** The fields that narrow the list; `onSet` gets the name and the value of one that changed. */
class FilterBar {
  #fields = {};
  #errors = {};

  constructor(filter, catalog, onSet) {
    const names = (entries) => entries.map((entry) => entry.name);
    this.element = h(
      "div",
      { class: "filters" },
      this.#typed("Search", "search", { hint: "ko, digits, ada, a tag\u2019s value", onSet }),
      this.#pick("Data set", "dataset", { options: names(catalog.datasets), value: filter.dataset, onSet }),
      this.#pick("Model", "model", { options: names(catalog.models), value: filter.model, onSet }),
      this.#pick("Optimizer", "optimizer", { options: names(catalog.optimizers), value: filter.optimizer, onSet }),
      this.#typed("User", "user", { hint: "name", onSet }),
      this.#typed("Tag", "tag", { hint: "key:value", onSet }),
    );
    this.show(filter);
  }

  /** Values by name; other fields are left alone, since somebody may be typing there. */
  show(values) {
    for (const [name, value] of Object.entries(values)) if (name in this.#fields) this.#fields[name].value = value;
  }

  /** Say what is wrong with a field; nothing where `text` is empty. Returns whether there is such a field. */
  tell(name, text) {
    if (!(name in this.#fields)) return false;
    this.#errors[name].textContent = text;
    this.#fields[name].setAttribute("aria-invalid", text !== "");
    return true;
  }

  #pick(title, name, { options, value, onSet }) {
    const unknown = value && !options.includes(value) ? [value] : []; // of an address, or of a data set that is gone
    return this.#field(
      title,
      name,
      h(
        "select",
        { onchange: (event) => onSet(name, event.target.value) },
        h("option", { value: "" }, "any"),
        [...options, ...unknown].map((one) => h("option", { value: one }, one)),
      ),
    );
  }

  #typed(title, name, { hint, onSet }) {
    const set = debounced((field) => onSet(name, field.value.trim()), 250);
    return this.#field(
      title,
      name,
      h("input", {
        type: "search",
        placeholder: hint,
        "data-search": name === "search",
        oninput: (event) => set(event.target),
      }),
    );
  }

  #field(title, name, field) {
    const id = (field.id = `filter-${name}`);
    const error = h("span", { class: "error", id: `${id}-error` });
    field.setAttribute("aria-describedby", error.id);
    this.#fields[name] = field;
    this.#errors[name] = error;
    return h("div", { class: `field ${name}` }, h("label", { for: id }, title), field, error);
  }
}

// --- the chosen ones ---

/** What is chosen, and what can be done with all of it at once. `onChange` is called when the choice changed. */
class Choice {
  chosen = new Set();
  #shown = [];
  #buttonsOf = "";
  #isActing = false;

  /** `act` gets what to do and the ids. */
  constructor(act, onChange) {
    this.act = act;
    this.onChange = onChange;
    this.every = h("input", { type: "checkbox", onchange: () => this.chooseAll(this.every.checked) });
    this.words = h("span", {}, "Choose all shown");
    this.buttons = h("span", { class: "row" });
    this.element = h(
      "div",
      { class: "select-bar" },
      h("label", { class: "row" }, this.every, this.words),
      this.buttons,
    );
  }

  choose(id, isChosen) {
    this.chosen[isChosen ? "add" : "delete"](id);
    this.draw();
  }

  chooseAll(isChosen) {
    this.chosen = new Set(isChosen ? this.#shown : []);
    this.draw();
  }

  /** The ids that are shown now: nobody means those that are not. */
  show(ids) {
    this.#shown = ids;
    const shown = new Set(ids);
    for (const id of this.chosen) if (!shown.has(id)) this.chosen.delete(id);
    this.draw();
  }

  draw() {
    const count = this.chosen.size;
    this.every.checked = count > 0 && count === this.#shown.length;
    this.every.indeterminate = count > 0 && !this.every.checked;
    this.words.textContent = count ? `${many(count, "job")} chosen` : "Choose all shown";
    this.#drawButtons();
    this.onChange();
  }

  /** A button that asks whether one is sure, or that works, must outlive what happens to the list meanwhile. */
  #drawButtons() {
    const ids = [...this.chosen];
    if (this.#isActing || ids.join() === this.#buttonsOf) return;
    this.#buttonsOf = ids.join();
    fill(
      this.buttons,
      ids.length > 0 && [
        action("Cancel them", () => this.#do("cancel", ids), {
          kind: "small danger",
          confirm: `Really cancel ${ids.length}?`,
        }),
        action("Retry them", () => this.#do("retry", ids), { kind: "small" }),
      ],
    );
  }

  async #do(what, ids) {
    this.#isActing = true;
    try {
      await this.act(what, ids);
      this.chosen = new Set();
    } finally {
      this.#isActing = false;
      this.draw();
    }
  }
}

async function act(what, ids) {
  let done = 0;
  const refused = [];
  for (let start = 0; start < ids.length; start += MOST_AT_ONCE) {
    const answer = await post("/v1/jobs/actions", { action: what, jobs: ids.slice(start, start + MOST_AT_ONCE) });
    for (const outcome of answer.outcomes) outcome.done ? (done += 1) : refused.push(outcome);
  }
  const verb = what === "cancel" ? "cancelled or asked to stop" : "submitted again";
  toast(
    `${many(done, "job")} ${verb}${refused.length ? `; ${refused.length} left alone: ${refused[0].detail}` : "."}`,
    refused.length && !done ? "error" : "note",
  );
}

// --- the page ---

export async function mount(root, { user, query, keepQuery, signal }) {
  const [catalog] = await Promise.all([get("/v1/catalog", {}, signal), loadLooks(signal)]);
  const filter = Object.fromEntries(FILTERS.map((name) => [name, query.get(name) ?? ""]));
  let sort = query.get("sort") ?? "newest";
  let list = { rows: [], next: null, counts: null };
  let wanted = PAGE;
  let error = null;
  let isRefused = false; // what is asked for; until something else is, asking again would not help

  const { live, onState } = liveSign();
  const rows = new Rows((id, isChosen) => choice.choose(id, isChosen));
  const choice = new Choice(
    (what, ids) => act(what, ids).then(() => load()),
    () => rows.mark(choice.chosen),
  );
  const filters = new FilterBar(filter, catalog, set);
  const picks = h("div", { class: "picks", role: "group", "aria-label": "Status" });
  const narrowed = h("div", { class: "picks" });
  const frame = h("div", { class: "part" });
  const showMore = action("Show more", more);
  const shown = h("span", { class: "note" });

  // --- what is asked for ---
  function set(name, value) {
    if (name === "tag" && value && !value.includes(":")) {
      filters.tell("tag", "key:value"); // it is being typed
      return;
    }
    setAll({ [name]: value });
  }

  function setAll(values) {
    Object.assign(filter, values);
    keepQuery(values);
    for (const name of Object.keys(values)) filters.tell(name, "");
    return anew();
  }

  function clear() {
    const none = Object.fromEntries(FILTERS.map((name) => [name, ""]));
    filters.show(none);
    return setAll(none);
  }

  function toggleOwn() {
    const own = filter.user === user.user ? "" : user.user;
    filters.show({ user: own });
    return setAll({ user: own });
  }

  function turn() {
    sort = sort === "newest" ? "oldest" : "newest";
    keepQuery({ sort: sort === "newest" ? null : sort });
    return anew();
  }

  /** Another list: what was chosen, or asked for until now, belongs to the one before. */
  function anew() {
    choice.chooseAll(false);
    wanted = PAGE;
    oldest = asked + 1;
    return load();
  }

  function more() {
    wanted = list.rows.length + PAGE;
    return load();
  }

  // --- data: each answer is the whole list that is shown, so that a late one can undo nothing ---
  let asked = 0;
  let oldest = 0; // of the questions whose answer is still of use
  const soon = throttled(() => isRefused || load(), AGAIN, signal);
  const later = throttled(() => isRefused || load(), 10_000, signal);
  const refresh = () => (list.rows.length > LONG ? later() : soon());

  async function load() {
    const mine = (asked += 1);
    const asks = { ...filter, sort: sort === "newest" ? "" : sort };
    try {
      const [found, { counts }] = await Promise.all([
        beginning("/v1/jobs", asks, wanted, signal),
        get("/v1/jobs/counts", { ...filter, status: "" }, signal),
      ]);
      if (mine < oldest) return;
      oldest = mine;
      list = { ...found, counts };
      error = null;
      isRefused = false;
    } catch (problem) {
      if (problem.name === "AbortError" || mine < oldest) return;
      if (problem.isAway) setTimeout(soon, AGAIN);
      if (problem.isAway && list.rows.length) return;
      isRefused = problem.status === 422;
      error = isAtItsField(problem) && list.counts ? null : problem.message;
    }
    draw();
  }

  /** Whether what the API refuses is said at its field; the list from before can stay. */
  function isAtItsField(problem) {
    const told = (problem.fields ?? []).map((one) => filters.tell(one.pointer, one.detail));
    return problem.status === 422 && told.includes(true);
  }

  // --- drawing ---
  function draw() {
    drawPicks();
    drawNarrowed();
    drawList();
    const jobs = error === null ? list.rows : [];
    choice.show(jobs.map((job) => job.id));
    showMore.hidden = !jobs.length || !list.next;
    shown.textContent = jobs.length ? `${many(jobs.length, "job")} shown` : "";
  }

  function drawPicks() {
    const { counts } = list;
    const all = counts ? STATUSES.reduce((sum, status) => sum + (counts[status] ?? 0), 0) : null;
    const others = filter.status && !STATUSES.includes(filter.status) ? [filter.status] : [];
    const one = (value, title, count) =>
      h(
        "button",
        { type: "button", "aria-pressed": filter.status === value, onclick: () => set("status", value) },
        title,
        count !== null && count !== undefined ? ` ${grouped(count)}` : "",
      );
    renew(
      picks,
      one("", "all", all),
      [...STATUSES, ...others].map((status) => one(status, status, counts?.[status])),
    );
  }

  /** What narrows the list beside the fields, and the way back. */
  function drawNarrowed() {
    narrowed.hidden = !FILTERS.some((name) => filter[name]);
    renew(
      narrowed,
      filter.comparison && [
        h("a", { href: `/comparisons/${encodeURIComponent(filter.comparison)}` }, "Runs of one comparison"),
        h(
          "button",
          { type: "button", "aria-label": "Show jobs of all comparisons", onclick: () => set("comparison", "") },
          "\u2715",
        ),
      ],
      h("button", { type: "button", onclick: clear }, "Clear all filters"),
    );
  }

  function drawList() {
    if (error !== null) fill(frame, failure());
    else if (!list.rows.length) fill(frame, nothing());
    else {
      rows.show(list.rows);
      const head = table({
        label: "Jobs",
        columns: rows.columns,
        rows: [],
        sorted: { by: "time", descending: sort === "newest" },
        onSort: turn,
      });
      head.querySelector("tbody").remove();
      if (frame.contains(rows.body)) renew(frame.querySelector("thead"), ...head.querySelector("thead").childNodes);
      else {
        head.querySelector("table").append(rows.body);
        fill(frame, head);
      }
    }
  }

  const failure = () =>
    empty("The list could not be loaded", error, h("button", { type: "button", onclick: load }, "Try again"));

  const nothing = () =>
    narrowed.hidden
      ? empty(
          "No jobs yet",
          "Submit one, and watch its curves grow.",
          h("a", { class: "button primary", href: "/jobs/new" }, "New job"),
        )
      : empty("No job is like that", "Loosen a filter to see more.");

  fill(
    root,
    h(
      "div",
      { class: "head" },
      h("h1", {}, "Jobs"),
      live,
      h("span", { class: "space" }),
      h("button", { type: "button", onclick: toggleOwn }, "Only mine"),
    ),
    filters.element,
    picks,
    narrowed,
    choice.element,
    frame,
    h("div", { class: "actions" }, showMore, shown),
  );
  await load();

  // --- live: rows that are shown change in place; what else is new comes with the next look at the list ---
  const changed = new Set();
  const redraw = throttled(
    () => {
      for (const id of changed) if (rows.find(id)) rows.draw(id);
      changed.clear();
    },
    500,
    signal,
  );

  function change(id, values) {
    const job = rows.find(id);
    if (!job || FINAL.includes(job.status)) return;
    Object.assign(job, values);
    changed.add(id);
    redraw();
  }

  follow("/v1/events", {
    signal,
    onState,
    onOpen: refresh,
    onEvent: ({ type, data }) => {
      if (type === "metric")
        for (const { job, step, total_steps } of data.progress) change(job, { progress: { step, total_steps } });
      else if (type === "status" && data.job) {
        change(data.job, { status: data.status, reason: data.reason });
        refresh();
      }
    },
  }).catch((problem) => toast(problem.message, "error"));
}
