// One job: its curves as they grow, and everything that is known of it.

import { get, post } from "../../lib/api.js";
import { Curves } from "../../charts/job_curves.js";
import { fill, h, throttled } from "../../lib/dom.js";
import { ago, shortId } from "../../lib/format.js";
import { JobFigures } from "../../charts/job_figures.js";
import { environment, files, isFinal, logItems, numbers } from "./parts.js";
import { follow } from "../../lib/event_stream.js";
import { loadLooks, lookOf } from "../../lib/styles.js";
import { pictures } from "../../components/figure_files.js";
import { action, code, copyable, jobChip, liveSign, optimizer, section, tabs, toast } from "../../components/parts.js";
import { refresher } from "../../lib/refresher.js";

const HISTORY_POINTS = 2000; // of each curve, before it is followed

export async function mount(root, { id, go, user, query, keepQuery, setTitle, signal }) {
  const look = () => get(`/v1/jobs/${id}`, {}, signal);
  let [job] = await Promise.all([look(), loadLooks(signal)]);
  const { spec } = job;
  setTitle(`${spec.optimizer.name} on ${spec.dataset.name}`);
  const head = headOf(id, { user, go, show: (found) => (show(found), refresh()) });
  const cards = h("div");
  const curves = new Curves();
  const figures = new JobFigures({ curves, look: lookOf(spec.optimizer.name), query, keepQuery, signal });
  const log = [];
  let latest = -1; // the number of the last thing that happened
  const logList = h("ol", { class: "list" });
  const surroundings = h("div");

  const drawLog = () => fill(logList, logItems(log));
  function drawHead() {
    head.draw(job);
    fill(cards, numbers(job, curves));
  }
  function show(found) {
    job = found;
    drawHead();
    figures.draw(job);
    fill(surroundings, environment(job));
  }

  const views = tabs(
    "Views of the job",
    [
      { name: "curves", title: "Curves", content: () => (setTimeout(() => figures.draw(job)), figures.element) },
      {
        name: "spec",
        title: "Spec",
        content: () => [
          h("p", {}, copyable(id)),
          code({ ...spec, ...(Object.keys(job.tags).length ? { tags: job.tags } : {}) }),
        ],
      },
      { name: "log", title: "Log", content: () => drawLog() },
      { name: "environment", title: "Environment", content: () => surroundings },
      {
        name: "files",
        title: "Files",
        content: () =>
          h(
            "div",
            { class: "page" },
            section("Files", files(id, signal)),
            section("Pictures", pictures(`/v1/jobs/${id}`, shortId(id), signal)),
          ),
      },
    ],
    query.get("tab"),
    (name) => keepQuery({ tab: name === "curves" ? null : name }),
  );

  fill(root, head.element, cards, views);
  show(job);

  // --- live ---
  /** The database is one from before: the stream tells everything again, which may be something else by now. */
  function startAnew() {
    curves.rewind(0);
    log.length = 0;
  }

  const refresh = refresher(look, show, { milliseconds: 300, signal });
  const redraw = throttled(
    () => {
      figures.draw(job);
      if (!isFinal(job)) drawHead();
    },
    1000,
    signal,
  );
  follow(`/v1/jobs/${id}/events?max_points=${HISTORY_POINTS}`, {
    signal,
    onState: head.onState,
    onEvent: ({ type, data }) => {
      if (type === "metric") {
        curves.add(data.points);
        job.progress = { step: data.step, total_steps: data.total_steps };
        redraw();
      } else if (type === "log" || type === "status") {
        if (data.seq <= latest) startAnew();
        latest = data.seq;
        if (data.rewind_to !== undefined && data.rewind_to !== null) curves.rewind(data.rewind_to);
        log.push({ ...data, isNote: type === "log" });
        if (logList.isConnected) drawLog();
        if (type === "status") refresh();
        redraw();
      } else if (type === "end") refresh();
    },
  }).catch((error) => toast(error.message, "error"));
}

/** What it is, its state, and what can be done with it; `show` gets the job as a change has left it. */
function headOf(id, { user, go, show }) {
  const element = h("div", { class: "head" });
  const { live, onState } = liveSign();
  // Made once: a button that asks whether one is sure must outlive the next look at the run.
  const cancelButton = action("Cancel", cancel, { kind: "danger", confirm: "Really cancel?" });
  const retryButton = action("Retry", retry);

  async function cancel() {
    const job = await post(`/v1/jobs/${id}/cancel`);
    toast(job.status === "cancelled" ? "Cancelled." : "Asked to stop: it ends after its current step.");
    show(job);
  }

  async function retry() {
    const again = await post(`/v1/jobs/${id}/retry`);
    await go(`/jobs/${again.id}`);
  }

  return {
    element,
    onState,
    draw(job) {
      const mayChange = user.is_admin || user.user === job.user;
      live.hidden = isFinal(job);
      fill(
        element,
        h("h1", {}, optimizer(job.spec), ` on ${job.spec.dataset.name}, ${job.spec.model.name}`),
        jobChip(job),
        live,
        h("span", { class: "space" }),
        h(
          "div",
          { class: "actions" },
          !isFinal(job) && mayChange && cancelButton,
          ["failed", "cancelled"].includes(job.status) && mayChange && retryButton,
          h("a", { class: "button", href: `/jobs/new?from=${id}` }, "Submit a variation"),
        ),
        h(
          "p",
          { class: "sub" },
          `seed ${job.spec.seed} \u00b7 by ${job.user} \u00b7 submitted ${ago(job.created_at)}`,
          job.retry_of && [" \u00b7 retry of ", h("a", { href: `/jobs/${job.retry_of}` }, shortId(job.retry_of))],
        ),
        job.message &&
          h(
            "p",
            { class: job.status === "failed" ? "sub wrong" : "sub" },
            job.message.length > 300 ? `${job.message.trim().split("\n").at(-1)}` : job.message,
          ),
      );
    },
  };
}
