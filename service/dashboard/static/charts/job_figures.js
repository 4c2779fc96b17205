// The figures of a job, drawn as its curves grow, and the knobs that say how.

import { Chart } from "./chart.js";
import { groups, traces } from "./job_curves.js";
import { fill, h } from "../lib/dom.js";
import { measured, words } from "../lib/format.js";
import { colour } from "../lib/styles.js";
import { empty } from "../components/parts.js";

const MOST_SMOOTHING = 0.99;

export class JobFigures {
  constructor({ curves, look, query, keepQuery, signal }) {
    Object.assign(this, { curves, look, keepQuery, signal });
    this.view = {
      smoothing: Math.min(MOST_SMOOTHING, Math.max(0, Number(query.get("smooth")) || 0)),
      log: query.get("log") === "1",
      by: query.get("by") === "time" ? "time" : "steps",
    };
    this.charts = new Map();
    this.figures = h("div", { class: "figures" });
    this.element = h("div", {}, this.knobs(), h("div", { class: "space" }), this.figures);
  }

  knobs() {
    const smooth = h("input", {
      type: "range",
      min: 0,
      max: MOST_SMOOTHING,
      step: 0.01,
      value: this.view.smoothing,
      "aria-label": "Smoothing",
      oninput: () =>
        this.change("smoothing", Number(smooth.value), "smooth", smooth.value === "0" ? null : smooth.value),
    });
    const logarithmic = h("input", {
      type: "checkbox",
      onchange: () => this.change("log", logarithmic.checked, "log", logarithmic.checked ? "1" : null),
    });
    logarithmic.checked = this.view.log;
    const by = h(
      "select",
      { onchange: () => this.change("by", by.value, "by", by.value === "steps" ? null : by.value) },
      h("option", { value: "steps" }, "steps"),
      h("option", { value: "time" }, "training time"),
    );
    by.value = this.view.by;
    return h(
      "div",
      { class: "knobs" },
      h("label", {}, "Smoothing", smooth),
      h("label", {}, logarithmic, "Logarithmic"),
      h("label", {}, "Along", by),
    );
  }

  change(name, value, parameter, text) {
    this.view[name] = value;
    this.keepQuery({ [parameter]: text });
    this.draw(this.job);
  }

  /** Draw what there is by now, where somebody sees it. */
  draw(job) {
    this.job = job;
    if (!this.figures.isConnected) return;
    if (this.curves.isEmpty) {
      this.charts.clear();
      fill(this.figures, nothingYet(job));
      return;
    }
    const found = groups([...this.curves.byName.keys()]);
    for (const group of found) this.chart(group.title).draw(() => this.figure(group));
    const wanted = found.map((group) => this.chart(group.title).element);
    if (
      wanted.length !== this.figures.childElementCount ||
      wanted.some((element, position) => this.figures.children[position] !== element)
    )
      fill(this.figures, wanted);
  }

  chart(title) {
    if (!this.charts.has(title)) this.charts.set(title, new Chart(title, { signal: this.signal }));
    return this.charts.get(title);
  }

  figure(group) {
    const { curves, look, view } = this;
    return {
      traces: traces(group, curves, { ...view, look, colour: colour(look) }),
      x: { title: view.by === "time" ? "training time, s" : "step", rangemode: "tozero" },
      y: {
        title: group.share ? `${group.y}, %` : group.y,
        log: view.log && !group.share ? true : (group.log ?? false),
      },
      description: `Latest: ${group.names.map((name) => `${words(name)} ${measured(curves.last(name), name)}`).join(", ")}.`,
    };
  }
}

const nothingYet = (job) =>
  job.status === "queued"
    ? empty("It waits for a free worker", "Curves appear here as soon as it trains.")
    : empty("No points yet", "They arrive about once a second.");
