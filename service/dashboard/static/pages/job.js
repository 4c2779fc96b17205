// One job: its curves as they grow, and everything that is known of it.

import { download, get, post } from "../api.js";
import { Chart } from "../chart.js";
import { Curves, groups, traces } from "../curves.js";
import { fill, h, throttled } from "../dom.js";
import { ago, bytes, duration, measured, moment, number, shortId, words } from "../format.js";
import { follow } from "../live.js";
import { colour, loadLooks, lookOf } from "../looks.js";
import { pictures } from "../pictures.js";
import {
  action,
  bar,
  chip,
  code,
  copyable,
  empty,
  facts,
  jobChip,
  optimizer,
  section,
  table,
  tabs,
  toast,
} from "../parts.js";

const HISTORY_POINTS = 2000; // of each curve, before it is followed
const FINAL = ["succeeded", "failed", "cancelled"];

export async function mount(root, { id, go, user, query, keepQuery, setTitle, signal }) {
  const [first] = await Promise.all([get(`/v1/jobs/${id}`, {}, signal), loadLooks(signal)]);
  let job = first;
  const look = lookOf(job.spec.optimizer.name);
  const curves = new Curves();
  const log = [];
  const view = {
    smoothing: Number(query.get("smooth") ?? 0),
    log: query.get("log") === "1",
    by: query.get("by") ?? "steps",
  };
  setTitle(`${job.spec.optimizer.name} on ${job.spec.dataset.name}`);

  // --- the head ---
  const head = h("div", { class: "head" });
  const numbers = h("div");
  const live = h("span", { class: "live" }, "connecting");
  // Made once: a button that asks whether one is sure must outlive the next look at the run.
  const cancelButton = action("Cancel", cancel, { kind: "danger", confirm: "Really cancel?" });
  const retryButton = action("Retry", retry);

  function drawHead() {
    const isFinal = FINAL.includes(job.status);
    live.hidden = isFinal;
    fill(
      head,
      h("h1", {}, optimizer(job.spec), ` on ${job.spec.dataset.name}, ${job.spec.model.name}`),
      jobChip(job),
      live,
      h("span", { class: "space" }),
      h(
        "div",
        { class: "actions" },
        !isFinal && mayChange() && cancelButton,
        ["failed", "cancelled"].includes(job.status) && mayChange() && retryButton,
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
    fill(numbers, cards());
  }

  function cards() {
    const summary = job.summary;
    const { step, total_steps: total } = job.progress;
    const found = [];
    const add = (name, value, more) =>
      value !== null &&
      value !== undefined &&
      found.push(h("div", {}, h("dt", {}, name), h("dd", {}, value, more && h("small", {}, ` ${more}`))));
    if (!FINAL.includes(job.status)) {
      found.push(
        h(
          "div",
          {},
          h("dt", {}, job.status === "queued" ? "Waiting" : "Progress"),
          h(
            "dd",
            {},
            total ? `${Math.floor((100 * step) / total)} %` : number(step),
            h("small", {}, total ? ` ${number(step)} of ${number(total)} steps` : " steps"),
            bar(total ? step / total : job.status === "queued" ? 0 : null, "progress of the run"),
          ),
        ),
      );
      for (const name of ["train_loss", "val_accuracy", "val_loss"])
        if (curves.last(name) !== null) add(words(name), measured(curves.last(name), name));
    } else if (summary) {
      for (const name of ["test_accuracy", "val_accuracy", "test_loss", "train_loss"])
        if (summary.metrics[name] !== undefined) add(words(name), measured(summary.metrics[name], name));
      add("Training time", duration(summary.train_seconds), `${duration(summary.total_seconds)} in all`);
      add("Steps", number(summary.steps), `${number(summary.epochs)} epochs`);
      add(
        "Target reached",
        summary.target && number(summary.target.step),
        summary.target && `steps, ${duration(summary.target.wall_seconds)}`,
      );
    }
    return found.length ? h("dl", { class: "numbers" }, found) : null;
  }

  const mayChange = () => user.is_admin || user.user === job.user;

  async function cancel() {
    job = await post(`/v1/jobs/${id}/cancel`);
    toast(job.status === "cancelled" ? "Cancelled." : "Asked to stop: it ends after its current step.");
    drawHead();
  }

  async function retry() {
    const again = await post(`/v1/jobs/${id}/retry`);
    await go(`/jobs/${again.id}`);
  }

  // --- curves ---
  const figures = h("div", { class: "figures" });
  const charts = new Map();

  function drawCurves() {
    if (!figures.isConnected) return;
    if (curves.isEmpty) {
      charts.clear();
      fill(
        figures,
        empty(
          job.status === "queued" ? "It waits for a free worker" : "No points yet",
          job.status === "queued" ? "Curves appear here as soon as it trains." : "They arrive about once a second.",
        ),
      );
      return;
    }
    const found = groups([...curves.byName.keys()]);
    for (const group of found) {
      if (!charts.has(group.title)) charts.set(group.title, new Chart(group.title, { signal }));
      charts.get(group.title).draw(() => ({
        traces: traces(group, curves, { ...view, look, colour: colour(look) }),
        x: { title: view.by === "time" ? "training time, s" : "step", rangemode: "tozero" },
        y: {
          title: group.share ? `${group.y}, %` : group.y,
          log: view.log && !group.share ? true : (group.log ?? false),
        },
        description: `Latest: ${group.names.map((name) => `${words(name)} ${measured(curves.last(name), name)}`).join(", ")}.`,
      }));
    }
    const wanted = found.map((group) => charts.get(group.title).element);
    if (
      wanted.length !== figures.childElementCount ||
      wanted.some((element, position) => figures.children[position] !== element)
    )
      fill(figures, wanted);
  }

  function knobs() {
    const smooth = h("input", {
      type: "range",
      min: 0,
      max: 0.99,
      step: 0.01,
      value: view.smoothing,
      "aria-label": "Smoothing",
      oninput: () => change("smoothing", Number(smooth.value), "smooth", smooth.value === "0" ? null : smooth.value),
    });
    const logarithmic = h("input", {
      type: "checkbox",
      onchange: () => change("log", logarithmic.checked, "log", logarithmic.checked ? "1" : null),
    });
    logarithmic.checked = view.log;
    const by = h(
      "select",
      { onchange: () => change("by", by.value, "by", by.value === "steps" ? null : by.value) },
      h("option", { value: "steps" }, "steps"),
      h("option", { value: "time" }, "training time"),
    );
    by.value = view.by;
    return h(
      "div",
      { class: "knobs" },
      h("label", {}, "Smoothing", smooth),
      h("label", {}, logarithmic, "Logarithmic"),
      h("label", {}, "Along", by),
    );
  }

  function change(name, value, parameter, text) {
    view[name] = value;
    keepQuery({ [parameter]: text });
    drawCurves();
  }

  // --- the other tabs ---
  const logList = h("ol", { class: "list" });

  function drawLog() {
    fill(
      logList,
      log.length
        ? log.map((event) =>
            h(
              "li",
              {},
              h(
                "div",
                { class: "row" },
                event.isNote ? h("span", { class: "chip" }, "note") : chip(event.status),
                event.reason &&
                  event.reason !== "completed" &&
                  h("span", { class: "why" }, event.reason.replaceAll("_", " ")),
                h("span", { class: "space" }),
                h("span", { class: "note" }, `attempt ${event.attempt}`),
                h("time", { class: "note", datetime: event.at }, moment(event.at)),
              ),
              event.message && h("pre", { class: "code" }, event.message.trim()),
            ),
          )
        : h("li", {}, "Nothing yet."),
    );
    return logList;
  }

  function environment() {
    const of = job.environment ?? {};
    const memory = job.summary?.memory;
    const parts = [
      ...Object.entries(of).map(([name, value]) => [words(name), value === null ? null : String(value)]),
      ["worker", job.worker],
      ["parameters", job.summary && number(job.summary.parameters)],
      ["peak memory", memory && bytes(memory.peak_bytes)],
      ["optimizer state", memory && bytes(memory.optimizer_state_bytes)],
    ];
    return Object.keys(of).length
      ? facts(parts)
      : empty("Not known yet", "A worker records versions, device and data once it has trained the job.");
  }

  function files() {
    const box = h("div", {}, "Loading \u2026");
    get(`/v1/jobs/${id}/artifacts`, {}, signal)
      .then(({ artifacts }) =>
        fill(
          box,
          artifacts.length
            ? table({
                label: "Files",
                columns: [
                  { title: "File", kind: "head", cell: (file) => file.name },
                  { title: "Size", cell: (file) => (file.size_bytes === null ? "" : bytes(file.size_bytes)) },
                  { title: "Made", cell: (file) => (file.created_at ? ago(file.created_at) : "") },
                  {
                    title: "",
                    cell: (file) =>
                      action(
                        "Download",
                        () =>
                          download(
                            `/v1/jobs/${id}/artifacts/${encodeURIComponent(file.name)}`,
                            `${shortId(id)}-${file.name}`,
                          ),
                        { kind: "small", label: `Download ${file.name}` },
                      ),
                  },
                ],
                rows: artifacts,
              })
            : empty("No files yet"),
        ),
      )
      .catch((error) => error.name === "AbortError" || fill(box, h("p", { class: "wrong" }, error.message)));
    return box;
  }

  const shelf = () =>
    h(
      "div",
      { class: "page" },
      section("Files", files()),
      section("Pictures", pictures(`/v1/jobs/${id}`, shortId(id), signal)),
    );

  const views = tabs(
    [
      {
        name: "curves",
        title: "Curves",
        content: () => (setTimeout(drawCurves), [knobs(), h("div", { class: "space" }), figures]),
      },
      {
        name: "spec",
        title: "Spec",
        content: () => [
          h("p", {}, copyable(id)),
          code({ ...job.spec, ...(Object.keys(job.tags).length ? { tags: job.tags } : {}) }),
        ],
      },
      { name: "log", title: "Log", content: () => drawLog() },
      { name: "environment", title: "Environment", content: environment },
      { name: "files", title: "Files", content: shelf },
    ],
    query.get("tab"),
    (name) => keepQuery({ tab: name === "curves" ? null : name }),
  );

  drawHead();
  fill(root, head, numbers, views);

  // --- live ---
  const redraw = throttled(
    () => {
      drawCurves();
      if (!FINAL.includes(job.status)) drawHead();
    },
    1000,
    signal,
  );
  const refresh = throttled(
    async () => {
      try {
        job = await get(`/v1/jobs/${id}`, {}, signal);
        drawHead();
        drawCurves();
      } catch (error) {
        if (error.name !== "AbortError" && !error.isAway) throw error;
      }
    },
    300,
    signal,
  );
  follow(`/v1/jobs/${id}/events?max_points=${HISTORY_POINTS}`, {
    signal,
    onState: (isLive) => {
      live.classList.toggle("on", isLive);
      live.textContent = isLive ? "live" : "reconnecting";
    },
    onEvent: ({ type, data }) => {
      if (type === "metric") {
        curves.add(data.points);
        job.progress = { step: data.step, total_steps: data.total_steps };
        redraw();
      } else if (type === "log" || type === "status") {
        if (data.rewind_to !== undefined && data.rewind_to !== null) curves.rewind(data.rewind_to);
        log.push({ ...data, isNote: type === "log" });
        if (logList.isConnected) drawLog();
        if (type === "status") refresh();
        redraw();
      } else if (type === "end") refresh();
    },
  }).catch((error) => toast(error.message, "error"));
}
