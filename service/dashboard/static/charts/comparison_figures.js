// The figures of a comparison's task: curves, scores of runs, learning rates, time to the target, cost.

import { get } from "../lib/api.js";
import { h } from "../lib/dom.js";
import { words } from "../lib/format.js";
import { RETRY_MILLISECONDS } from "../lib/refresher.js";
import { Chart } from "./chart.js";
import { curvesPlot } from "./comparison_curves.js";
import { costPlot, learningRatesPlot, scoresPlot, targetPlot } from "./comparison_plots.js";

const METRICS = ["val_accuracy", "val_loss", "train_loss", "train_accuracy"];
const NOTES = {
  curves:
    "Lines are means over seeds; bands span the lowest to the highest run. Thin lines that end in a cross are diverged runs. The y axis may cut off the start: double-click to show it.",
  scores: "Each dot is a run. The tick below the dots is the mean, with its 95 % interval if known.",
  condensation: "Mean correlation between the weights of a layer's neurons; bands span the lowest to the highest run.",
  rates: "Each dot is a trial, scored on validation data; the chosen one is larger.",
  target: "Each dot is the median over runs. A run that missed the target counts as later than any that reached it; if there is no dot, at least half of the runs missed it.",
  cost: "Time per step relative to the fastest optimizer of the task.",
};

export class ComparisonFigures {
  #state = null; // identifies the runs whose curves were requested
  #requests = 0;
  #drawn = 0; // number of the request whose answer is drawn

  constructor({ id, query, keepQuery, signal }) {
    Object.assign(this, { id, keepQuery, signal });
    this.metric = METRICS.includes(query.get("metric")) ? query.get("metric") : METRICS[0];
    this.along = query.get("along") === "wall_seconds" ? "wall_seconds" : "steps";
    const chart = (title, note) => new Chart(title, { signal, note });
    this.charts = {
      curves: chart("Curves", NOTES.curves),
      scores: chart("Scores of runs", NOTES.scores),
      target: chart("Time to target", NOTES.target),
      rates: chart("Learning rates", NOTES.rates),
      condensation: chart("Condensation", NOTES.condensation),
      cost: chart("Time per step", NOTES.cost),
    };
    const figures = Object.values(this.charts).map((chart) => chart.element);
    this.element = h(
      "section",
      { class: "page", "aria-label": "Figures" },
      this.#controls(),
      h("div", { class: "figures" }, figures),
    );
  }

  #controls() {
    const select = (name, options) => {
      const control = h(
        "select",
        { onchange: () => this.#change(name, control.value, options[0][0]) },
        options.map(([value, text]) => h("option", { value }, text)),
      );
      control.value = this[name];
      return control;
    };
    const metrics = METRICS.map((name) => [name, words(name)]);
    const axes = [
      ["steps", "steps"],
      ["wall_seconds", "time since start"],
    ];
    return h(
      "div",
      { class: "knobs" },
      h("label", {}, "Metric of the curves", select("metric", metrics)),
      h("label", {}, "x axis", select("along", axes)),
    );
  }

  #change(name, value, usual) {
    this[name] = value;
    this.keepQuery({ [name]: value === usual ? null : value });
    this.#fetchCurves();
  }

  /** Draw a task, by its number from 1. */
  show(answer, number) {
    const task = answer.tasks[number - 1];
    Object.assign(this, { answer, number, task });
    const { rates, target, cost } = this.charts;
    rates.element.hidden = !task.tuning.length;
    rates.draw(() => learningRatesPlot(answer, task));
    target.element.hidden = !task.target;
    target.draw(() => targetPlot(answer, task));
    cost.draw(() => costPlot(answer, task));
    // Curves change only when a run finishes.
    const state = `${answer.status} ${number} ${task.groups.map((group) => group.jobs.length).join(" ")}`;
    if (state !== this.#state) {
      this.#state = state;
      this.#fetchCurves();
    }
  }

  get #selected() {
    return [this.number, this.metric, this.along].join(" ");
  }

  async #fetchCurves() {
    const { number, task, along, charts } = this;
    const selected = this.#selected;
    const request = (this.#requests += 1);
    const curvesOf = (metric) => get(`/v1/comparisons/${this.id}/curves`, { task: number, metric, along }, this.signal);
    try {
      const [curves, scores, condensation] = await Promise.all(
        [this.metric, task.metric, "weight_correlation"].map(curvesOf),
      );
      if (selected !== this.#selected || request < this.#drawn) return; // another selection, or a later answer
      this.#drawn = request;
      charts.curves.draw(() => curvesPlot(this.answer, curves));
      charts.condensation.draw(() => curvesPlot(this.answer, condensation));
      charts.scores.draw(() => scoresPlot(this.answer, task, scores));
    } catch (error) {
      if (error.name !== "AbortError" && request === this.#requests) this.#fail(error, request);
    }
  }

  #fail(error, request) {
    if (error.isTemporary) {
      const isCurrent = () => request === this.#requests && !this.signal.aborted;
      setTimeout(() => isCurrent() && this.#fetchCurves(), RETRY_MILLISECONDS);
      return;
    }
    const { curves, scores, condensation } = this.charts;
    for (const chart of [curves, scores, condensation]) chart.draw(() => ({ message: error.message }));
  }
}
