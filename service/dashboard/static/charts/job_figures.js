// The figures of a job, redrawn as its curves grow, and the controls above them.

import { emptyState } from "../components/states.js";
import { fill, h } from "../lib/dom.js";
import { metricValue, words } from "../lib/format.js";
import { isFinalJob } from "../lib/statuses.js";
import { plotlyColor } from "../lib/styles.js";
import { Chart } from "./chart.js";
import { jobTraces, plotGroups } from "./job_plots.js";

const MAX_SMOOTHING = 0.99;

export class JobFigures {
  #charts = new Map(); // by title
  #figures = h("div", { class: "figures" });

  constructor({ curves, style, query, keepQuery, signal }) {
    Object.assign(this, { curves, style, keepQuery, signal });
    this.view = {
      smoothing: Math.min(MAX_SMOOTHING, Math.max(0, Number(query.get("smooth")) || 0)),
      isLog: query.get("log") === "1",
      by: query.get("by") === "time" ? "time" : "steps",
    };
    this.element = h("div", {}, this.#controls(), h("div", { class: "space" }), this.#figures);
  }

  #controls() {
    const smoothing = h("input", {
      type: "range",
      min: 0,
      max: MAX_SMOOTHING,
      step: 0.01,
      value: this.view.smoothing,
      "aria-label": "Smoothing",
      oninput: () => this.#change("smoothing", Number(smoothing.value), { smooth: Number(smoothing.value) || null }),
    });
    const log = h("input", {
      type: "checkbox",
      onchange: () => this.#change("isLog", log.checked, { log: log.checked ? "1" : null }),
    });
    log.checked = this.view.isLog;
    const by = h(
      "select",
      { onchange: () => this.#change("by", by.value, { by: by.value === "steps" ? null : by.value }) },
      h("option", { value: "steps" }, "steps"),
      h("option", { value: "time" }, "time since start"),
    );
    by.value = this.view.by;
    return h(
      "div",
      { class: "knobs" },
      h("label", {}, "Smoothing", smoothing),
      h("label", {}, log, "Logarithmic"),
      h("label", {}, "x axis", by),
    );
  }

  #change(name, value, query) {
    this.view[name] = value;
    this.keepQuery(query);
    this.draw(this.job);
  }

  /** Draw the curves collected so far, if the figures are on the page. */
  draw(job) {
    this.job = job;
    if (!this.#figures.isConnected) return;
    const groups = plotGroups(this.curves.names);
    if (!groups.length) {
      this.#charts.clear();
      fill(this.#figures, noCurves(job));
      return;
    }
    for (const group of groups) this.#chart(group.title).draw(() => this.#plot(group));
    const wanted = groups.map((group) => this.#chart(group.title).element);
    const { children } = this.#figures;
    if (wanted.length !== children.length || wanted.some((element, position) => children[position] !== element))
      fill(this.#figures, wanted);
  }

  #chart(title) {
    if (!this.#charts.has(title)) this.#charts.set(title, new Chart(title, { signal: this.signal }));
    return this.#charts.get(title);
  }

  #plot(group) {
    const { curves, style, view } = this;
    if (!group.names.every((name) => curves.byName.has(name))) return { message: "No points yet" }; // a rewind
    const latest = group.names.map((name) => `${words(name)} ${metricValue(curves.last(name), name)}`);
    return {
      traces: jobTraces(group, curves, { ...view, style, color: plotlyColor(style) }),
      x: { title: view.by === "time" ? "time since start, s" : "step", rangemode: "tozero" },
      y: {
        title: group.isFraction ? `${group.y}, %` : group.y,
        log: (view.isLog && !group.isFraction) || Boolean(group.isLog),
      },
      description: `Latest values: ${latest.join(", ")}.`,
    };
  }
}

function noCurves(job) {
  if (job.status === "queued") return emptyState("Queued", "Curves appear here when a worker trains the job.");
  if (!isFinalJob(job)) return emptyState("No points yet", "They arrive about once a second.");
  if (job.summary) return emptyState("No points", "They were removed to free space; the results above are kept.");
  return emptyState("No points", `The job ended (${job.reason ?? job.status}) before its first point: see the log.`);
}
