// The figures of a comparison's task: curves with bands, every run, learning rates, times to the target.

import { get } from "./api.js";
import { Chart, faded } from "./chart.js";
import { fill, h } from "./dom.js";
import { duration, isShare, many, measured, words } from "./format.js";
import { colour, dash, symbol } from "./looks.js";

const METRICS = ["val_accuracy", "val_loss", "train_loss", "train_accuracy"];

export class Figures {
  constructor({ id, query, keepQuery, signal }) {
    Object.assign(this, { id, keepQuery, signal });
    this.metric = query.get("metric") ?? "val_accuracy";
    this.along = query.get("along") ?? "steps";
    this.state = null;
    const chart = (title, note) => new Chart(title, { signal, note });
    this.curves = chart(
      "Curves",
      "Lines are means over the seeds; bands reach from the lowest run to the highest. Thin lines that end in a cross diverged.",
    );
    this.finals = chart("Every run", "Each dot is a run; the line beside them is the mean with its 95 % interval.");
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
      { onchange: () => this.turn("metric", metric.value, "val_accuracy") },
      METRICS.map((name) => h("option", { value: name }, words(name))),
    );
    metric.value = METRICS.includes(this.metric) ? this.metric : METRICS[0];
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
    this.answer = answer;
    this.number = number;
    this.task = answer.tasks[number - 1];
    this.drawRates();
    this.drawTarget();
    this.drawCost();
    // Curves change only where a run has ended.
    const state = `${number} ${this.task.groups.map((group) => group.jobs.length).join(" ")}`;
    if (state !== this.state) {
      this.state = state;
      this.fetchCurves();
    }
  }

  look(label) {
    return this.answer.looks[label] ?? { colour: 6, dash: 0, marker: 0 };
  }

  async fetchCurves() {
    const { number, task } = this;
    const ask = (metric) =>
      get(`/v1/comparisons/${this.id}/curves`, { task: number, metric, along: this.along }, this.signal);
    try {
      const [curves, finals, condensation] = await Promise.all([
        ask(this.metric),
        ask(task.metric),
        ask("weight_correlation"),
      ]);
      if (number !== this.number) return;
      this.curves.draw(() => this.bands(curves));
      this.condensation.draw(() => this.bands(condensation));
      this.finals.draw(() => this.strip(finals));
    } catch (error) {
      if (error.name !== "AbortError" && !error.isAway)
        for (const chart of [this.curves, this.finals, this.condensation])
          chart.draw(() => ({ traces: [], why: error.message }));
    }
  }

  bands({ metric, along, bands, diverged }) {
    const yet = this.answer.status === "running" ? " yet" : "";
    if (!bands.length && !diverged.length) return { traces: [], why: `No run has such a curve${yet}.` };
    const factor = isShare(metric) ? 100 : 1;
    const scaled = (values) => values.map((value) => factor * value);
    const traces = bands.flatMap(({ label, runs, x, mean, low, high }) => {
      const look = this.look(label);
      const tint = colour(look);
      const edge = {
        type: "scatter",
        mode: "lines",
        line: { width: 0 },
        hoverinfo: "skip",
        showlegend: false,
        legendgroup: label,
      };
      const every = Math.max(1, Math.floor(x.length / 6));
      return [
        ...(runs > 1
          ? [
              { ...edge, x, y: scaled(low) },
              { ...edge, x, y: scaled(high), fill: "tonexty", fillcolor: faded(tint, 0.16) },
            ]
          : []),
        {
          type: "scatter",
          mode: "lines",
          name: label,
          legendgroup: label,
          x,
          y: scaled(mean),
          line: { color: tint, width: 2, dash: dash(look) },
          hovertemplate: isShare(metric) ? "%{y:.2f} %" : "%{y:.4~g}",
        },
        {
          type: "scatter",
          mode: "markers",
          x: x.filter((_, i) => i % every === 0),
          y: scaled(mean).filter((_, i) => i % every === 0),
          marker: { color: tint, size: 6, symbol: symbol(look) },
          hoverinfo: "skip",
          showlegend: false,
          legendgroup: label,
        },
      ];
    });
    for (const { label, x, y } of diverged) {
      const tint = colour(this.look(label));
      traces.push({
        type: "scatter",
        mode: "lines",
        x,
        y: scaled(y),
        line: { color: faded(tint, 0.6), width: 1 },
        hoverinfo: "skip",
        showlegend: false,
      });
      traces.push({
        type: "scatter",
        mode: "markers",
        x: x.slice(-1),
        y: scaled(y.slice(-1)),
        marker: { color: tint, symbol: "x", size: 8 },
        hovertemplate: `${label} diverged<extra></extra>`,
        showlegend: false,
      });
    }
    const values = bands.flatMap((one) => one.low).filter((value) => value > 0);
    const isLog =
      metric.endsWith("loss") &&
      values.length > 0 &&
      Math.max(...bands.flatMap((one) => one.mean)) > 10 * Math.min(...values);
    return {
      traces,
      height: 320,
      x: { title: along === "steps" ? "optimizer steps" : "seconds since the run began" },
      y: {
        title: `${words(metric)}${isShare(metric) ? ", %" : ""}`,
        log: isLog,
        range: isLog ? undefined : lateRange(bands, factor),
      },
      description: `Last means: ${bands.map((one) => `${one.label} ${measured(one.mean.at(-1), metric)}`).join(", ")}.`,
    };
  }

  strip({ metric, finals }) {
    if (!finals.length)
      return {
        traces: [],
        why: this.answer.status === "running" ? "No run has ended yet." : "No run has an end that could be drawn.",
      };
    const factor = isShare(metric) ? 100 : 1;
    const groups = this.task.groups.filter((group) => finals.some((one) => one.label === group.label));
    const row = new Map(groups.map((group, position) => [group.label, groups.length - 1 - position]));
    const spread = (position, count) => (count > 1 ? 0.28 * ((position * 0.618) % 1) - 0.14 : 0); // golden steps: near ones apart
    const traces = groups.flatMap((group) => {
      const look = this.look(group.label);
      const tint = colour(look);
      const runs = finals.filter((one) => one.label === group.label);
      const y = row.get(group.label);
      return [
        {
          type: "scatter",
          mode: "markers",
          name: group.label,
          showlegend: false,
          x: runs.map((one) => factor * one.value),
          y: runs.map((_, position) => y + 0.1 + spread(position, runs.length)),
          marker: { color: faded(tint, 0.65), size: 7, symbol: symbol(look) },
          hovertemplate: isShare(metric) ? "%{x:.2f} %" : "%{x:.4~g}",
        },
        ...(group.mean === null
          ? []
          : [
              {
                type: "scatter",
                mode: "markers",
                showlegend: false,
                x: [factor * group.mean],
                y: [y - 0.26],
                marker: { color: tint, size: 9, symbol: "line-ns", line: { color: tint, width: 2.5 } },
                error_x: group.interval
                  ? {
                      type: "data",
                      symmetric: false,
                      array: [factor * (group.interval[1] - group.mean)],
                      arrayminus: [factor * (group.mean - group.interval[0])],
                      color: tint,
                      thickness: 2,
                      width: 5,
                    }
                  : undefined,
                hovertemplate: `mean ${measured(group.mean, metric)}<extra></extra>`,
              },
            ]),
      ];
    });
    return {
      traces,
      legend: false,
      height: Math.max(200, 70 + 46 * groups.length),
      layout: { hovermode: "closest" },
      x: { title: `${words(metric)}${isShare(metric) ? ", %" : ""}` },
      y: {
        tickvals: [...row.values()],
        ticktext: [...row.keys()].map(short),
        range: [-0.6, groups.length - 0.4],
        showgrid: false,
        zeroline: false,
        ticks: "",
      },
      description: groups
        .map((group) => `${group.label}: mean ${measured(group.mean, metric)} of ${many(group.n, "run")}`)
        .join("; "),
    };
  }

  drawRates() {
    const views = this.task.tuning.filter((view) => view.trials.some((trial) => typeof trial.params.lr === "number"));
    this.rates.element.hidden = !this.task.tuning.length;
    this.rates.draw(() => {
      const factor = isShare(views[0]?.metric ?? "") ? 100 : 1;
      const traces = views
        .flatMap((view) => {
          const look = this.look(view.label);
          const tint = colour(look);
          const trials = view.trials
            .filter((trial) => trial.score !== null && typeof trial.params.lr === "number")
            .sort((a, b) => a.params.lr - b.params.lr);
          const x = trials.map((trial) => trial.params.lr);
          const y = trials.map((trial) => factor * trial.score);
          const isAlone = Object.keys(trials[0]?.params ?? {}).length === 1;
          return [
            {
              type: "scatter",
              mode: isAlone ? "lines+markers" : "markers",
              name: view.label,
              x,
              y,
              line: { color: tint, width: 1.5, dash: dash(look) },
              marker: {
                color: tint,
                size: trials.map((trial) => (trial.trial === view.chosen ? 12 : 7)),
                symbol: symbol(look),
                line: { color: tint, width: trials.map((trial) => (trial.trial === view.chosen ? 3 : 0)) },
                opacity: trials.map((trial) => (trial.trial === view.chosen ? 1 : 0.75)),
              },
            },
          ];
        })
        .filter((trace) => trace.x.length);
      if (!traces.length)
        return {
          traces: [],
          why: this.answer.status === "running" ? "No trial has ended yet." : "No learning rate was tuned.",
        };
      return {
        traces,
        layout: { hovermode: "closest" },
        x: { title: "learning rate", log: true },
        y: { title: `${words(views[0].metric)}${factor === 100 ? ", %" : ""}` },
        description: "Validation score of each trial against its learning rate.",
      };
    });
  }

  drawTarget() {
    const rows = this.task.to_target.filter((row) => row.runs);
    this.target.element.hidden = !this.task.target;
    this.target.draw(() => {
      if (!rows.length) return { traces: [], why: "No run has ended yet." };
      const y = rows.map((_, position) => rows.length - 1 - position);
      const of = (key) => rows.map((row) => row[key]);
      const traces = rows.map((row, position) => {
        const look = this.look(row.label);
        return {
          type: "scatter",
          mode: "markers+text",
          showlegend: false,
          name: row.label,
          x: [row.steps ?? 0],
          y: [y[position]],
          marker: { color: colour(look), size: 11, symbol: symbol(look), opacity: row.steps === null ? 0 : 1 },
          text: [`${row.reached} of ${row.runs} reached it${row.seconds === null ? "" : `, ${duration(row.seconds)}`}`],
          textposition: "middle right",
          hovertemplate:
            row.steps === null ? "no median: half of the runs or more missed it<extra></extra>" : "%{x} steps",
        };
      });
      const most = Math.max(...of("steps").filter((value) => value !== null), 1);
      return {
        traces,
        legend: false,
        height: Math.max(180, 70 + 40 * rows.length),
        layout: { hovermode: "closest" },
        x: { title: "optimizer steps, median", range: [0, 1.9 * most] },
        y: {
          tickvals: y,
          ticktext: of("label").map(short),
          range: [-0.6, rows.length - 0.4],
          showgrid: false,
          zeroline: false,
          ticks: "",
        },
        description: rows.map((row) => `${row.label}: ${row.reached} of ${row.runs} reached it`).join("; "),
      };
    });
  }

  drawCost() {
    const rows = this.task.cost.filter((row) => row.ratio !== null);
    this.cost.draw(() => {
      if (!rows.length) return { traces: [], why: "No run has told its time yet." };
      const y = rows.map((_, position) => rows.length - 1 - position);
      const traces = rows.map((row, position) => ({
        type: "bar",
        orientation: "h",
        showlegend: false,
        name: row.label,
        x: [row.ratio],
        y: [y[position]],
        width: 0.55,
        marker: { color: faded(colour(this.look(row.label)), 0.8) },
        text: [`${row.ratio.toFixed(2)}  (${row.milliseconds_per_step.toPrecision(3)} ms)`],
        textposition: "outside",
        cliponaxis: false,
        hoverinfo: "skip",
      }));
      return {
        traces,
        legend: false,
        height: Math.max(180, 70 + 40 * rows.length),
        layout: { hovermode: false },
        x: {
          title: "time of a step, ratio to the cheapest",
          range: [0, 1.35 * Math.max(...rows.map((row) => row.ratio))],
        },
        y: {
          tickvals: y,
          ticktext: rows.map((row) => short(row.label)),
          range: [-0.6, rows.length - 0.4],
          showgrid: false,
          zeroline: false,
          ticks: "",
        },
        description: rows.map((row) => `${row.label} ${row.ratio.toFixed(2)}`).join(", "),
      };
    });
  }
}

const EARLY = 0.2; // share of the training that may leave the axes, lest the start hides the end

/** The range of what comes after the start, as in the reports; none where there is nothing. */
function lateRange(bands, factor) {
  if (!bands.length) return undefined;
  const end = Math.max(...bands.map((one) => one.x.at(-1)));
  const late = (one, values) => values.filter((_, i) => one.x[i] >= Math.min(EARLY * end, one.x.at(-1)));
  const low = factor * Math.min(...bands.flatMap((one) => late(one, one.low)));
  const high = factor * Math.max(...bands.flatMap((one) => late(one, one.high)));
  const margin = 0.05 * (high - low) || 0.01 * Math.abs(high) || 0.01;
  return [low - margin, high + margin];
}

const short = (label) => (label.length > 26 ? `${label.slice(0, 25)}\u2026` : label);
