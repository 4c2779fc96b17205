// The figures of a comparison's task: curves with bands, every run, learning rates, times to the target.

import { get } from "../lib/api.js";
import { Chart } from "./chart.js";
import { bands, cost, finals, rates, target } from "./comparison_plots.js";
import { fill, h } from "../lib/dom.js";
import { words } from "../lib/format.js";
import { AGAIN } from "../lib/refresher.js";

const METRICS = ["val_accuracy", "val_loss", "train_loss", "train_accuracy"];

export class Figures {
  constructor({ id, query, keepQuery, signal }) {
    Object.assign(this, { id, keepQuery, signal });
    this.metric = METRICS.includes(query.get("metric")) ? query.get("metric") : METRICS[0];
    this.along = query.get("along") === "wall_seconds" ? "wall_seconds" : "steps";
    this.state = null; // of the runs whose curves were asked for
    this.asked = 0; // questions for curves so far,
    this.drawn = 0; // and the one whose answer is drawn
    const chart = (title, note) => new Chart(title, { signal, note });
    this.curves = chart(
      "Curves",
      "Lines are means over the seeds; bands reach from the lowest run to the highest. Thin lines that end in a cross diverged. The axis may leave out the start; a double click shows it.",
    );
    this.finals = chart(
      "Every run",
      "Each dot is a run; the line beside them is the mean, with its 95 % interval where there is one.",
    );
    this.condensation = chart(
      "Condensation",
      "Mean correlation between the weights of a layer's neurons; bands from the lowest run to the highest.",
    );
    this.rates = chart("Learning rates", "Each dot is a trial, judged on validation data; the chosen one is larger.");
    this.target = chart(
      "Time to the target",
      "Each dot is the median over runs; a run that missed the target counts as later than it lasted.",
    );
    this.cost = chart(
      "Cost of a step",
      "Time of a step relative to the cheapest optimizer of the task, and the memory of its state.",
    );
    this.knobs = h("div", { class: "knobs" });
    this.element = h(
      "section",
      { class: "page", "aria-label": "Figures" },
      this.knobs,
      h(
        "div",
        { class: "figures" },
        [this.curves, this.finals, this.target, this.rates, this.condensation, this.cost].map((one) => one.element),
      ),
    );
    this.drawKnobs();
  }

  drawKnobs() {
    const metric = h(
      "select",
      { onchange: () => this.turn("metric", metric.value, METRICS[0]) },
      METRICS.map((name) => h("option", { value: name }, words(name))),
    );
    metric.value = this.metric;
    const along = h(
      "select",
      { onchange: () => this.turn("along", along.value, "steps") },
      h("option", { value: "steps" }, "steps"),
      h("option", { value: "wall_seconds" }, "training time"),
    );
    along.value = this.along;
    fill(this.knobs, h("label", {}, "Curves of", metric), h("label", {}, "along", along));
  }

  turn(name, value, usual) {
    this[name] = value;
    this.keepQuery({ [name]: value === usual ? null : value });
    this.fetchCurves();
  }

  /** Draw what this answer says of a task, by its number from 1. */
  show(answer, number) {
    const task = answer.tasks[number - 1];
    Object.assign(this, { answer, number, task });
    this.rates.element.hidden = !task.tuning.length;
    this.rates.draw(() => rates(answer, task));
    this.target.element.hidden = !task.target;
    this.target.draw(() => target(answer, task));
    this.cost.draw(() => cost(answer, task));
    // Curves change only where a run has ended.
    const state = `${answer.status} ${number} ${task.groups.map((group) => group.jobs.length).join(" ")}`;
    if (state !== this.state) {
      this.state = state;
      this.fetchCurves();
    }
  }

  /** What the reader wants to see curves of. */
  get wanted() {
    return [this.number, this.metric, this.along].join(" ");
  }

  async fetchCurves() {
    const { number, task, along, wanted } = this;
    const mine = (this.asked += 1);
    const ask = (metric) => get(`/v1/comparisons/${this.id}/curves`, { task: number, metric, along }, this.signal);
    try {
      const [curves, ends, condensation] = await Promise.all([
        ask(this.metric),
        ask(task.metric),
        ask("weight_correlation"),
      ]);
      if (wanted !== this.wanted || mine < this.drawn) return; // something else was chosen, or a later answer is there
      this.drawn = mine;
      this.curves.draw(() => bands(this.answer, curves));
      this.condensation.draw(() => bands(this.answer, condensation));
      this.finals.draw(() => finals(this.answer, task, ends));
    } catch (error) {
      if (error.name === "AbortError" || mine !== this.asked) return;
      if (error.isAway) setTimeout(() => mine === this.asked && !this.signal.aborted && this.fetchCurves(), AGAIN);
      else
        for (const chart of [this.curves, this.finals, this.condensation])
          chart.draw(() => ({ traces: [], why: error.message }));
    }
  }
}
