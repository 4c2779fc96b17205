// All jobs: found, followed, cancelled and run again.

import { get } from "../../lib/api.js";
import { fill, h, renew, throttled } from "../../lib/dom.js";
import { grouped, many } from "../../lib/format.js";
import { Selection, act } from "./selection.js";
import { FilterBar } from "./filters.js";
import { Rows } from "./rows.js";
import { beginning } from "../../lib/pagination.js";
import { follow } from "../../lib/event_stream.js";
import { loadLooks } from "../../lib/styles.js";
import { AGAIN } from "../../lib/refresher.js";
import { action, empty, liveSign, table, toast } from "../../components/parts.js";

const PAGE = 100;
const LONG = 500; // rows; such a list is looked at again more seldom
const STATUSES = ["queued", "running", "succeeded", "failed", "cancelled"];
const FINAL = ["succeeded", "failed", "cancelled"];
const FILTERS = ["status", "dataset", "model", "optimizer", "user", "tag", "search", "comparison"];

export async function mount(root, { user, query, keepQuery, signal }) {
  const [catalog] = await Promise.all([get("/v1/catalog", {}, signal), loadLooks(signal)]);
  const filter = Object.fromEntries(FILTERS.map((name) => [name, query.get(name) ?? ""]));
  let sort = query.get("sort") ?? "newest";
  let list = { rows: [], next: null, counts: null };
  let wanted = PAGE;
  let error = null;
  let isRefused = false; // what is asked for; until something else is, asking again would not help

  const { live, onState } = liveSign();
  const rows = new Rows((id, isChosen) => selection.choose(id, isChosen));
  const selection = new Selection(
    (what, ids) => act(what, ids).then(() => load()),
    () => rows.mark(selection.chosen),
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
    selection.chooseAll(false);
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
    selection.show(jobs.map((job) => job.id));
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
    selection.element,
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
