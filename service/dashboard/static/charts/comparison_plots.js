// What the figures of a comparison draw: each function gives what `Chart.draw` takes, from the API's answer.

import { faded, plain } from "./chart.js";
import { isOver, lookIn } from "../pages/comparison/parts.js";
import { duration, isShare, many, measured, words } from "../lib/format.js";
import { colour, dash, symbol } from "../lib/styles.js";

/** Means over the seeds with bands, and runs that diverged, from an answer of the API on curves. */
export function bands(answer, { metric, along, bands: all, diverged }) {
  const yet = isOver(answer) ? "" : " yet";
  if (!all.length && !diverged.length) return { traces: [], why: `No run has such a curve${yet}.` };
  const factor = isShare(metric) ? 100 : 1;
  const scaled = (values) => values.map((value) => factor * value);
  const traces = all.flatMap(({ label, runs, x, mean, low, high }) => {
    const look = lookIn(answer, label);
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
        name: plain(label),
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
    const tint = colour(lookIn(answer, label));
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
      hovertemplate: `${plain(label)} diverged<extra></extra>`,
      showlegend: false,
    });
  }
  const values = all.flatMap((one) => one.low).filter((value) => value > 0);
  const isLog =
    metric.endsWith("loss") &&
    values.length > 0 &&
    Math.max(...all.flatMap((one) => one.mean)) > 10 * Math.min(...values);
  return {
    traces,
    height: 320,
    x: { title: along === "steps" ? "optimizer steps" : "seconds since the run began" },
    y: {
      title: `${words(metric)}${isShare(metric) ? ", %" : ""}`,
      log: isLog,
      range: isLog ? undefined : lateRange(all, factor),
    },
    description: `Last means: ${all.map((one) => `${one.label} ${measured(one.mean.at(-1), metric)}`).join(", ")}.`,
  };
}

/** Every run as a dot, beside the means of a task's groups. */
export function finals(answer, task, { metric, finals: all }) {
  if (!all.length)
    return {
      traces: [],
      why: isOver(answer) ? "No run has an end that could be drawn." : "No run has ended yet.",
    };
  const factor = isShare(metric) ? 100 : 1;
  const groups = task.groups.filter((group) => all.some((one) => one.label === group.label));
  const row = new Map(groups.map((group, position) => [group.label, groups.length - 1 - position]));
  const spread = (position, count) => (count > 1 ? 0.28 * ((position * 0.618) % 1) - 0.14 : 0); // golden steps: near ones apart
  const traces = groups.flatMap((group) => {
    const look = lookIn(answer, group.label);
    const tint = colour(look);
    const runs = all.filter((one) => one.label === group.label);
    const y = row.get(group.label);
    return [
      {
        type: "scatter",
        mode: "markers",
        name: plain(group.label),
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

/** Validation scores of trials against their learning rates. */
export function rates(answer, task) {
  const views = task.tuning.filter((view) => view.trials.some((trial) => typeof trial.params.lr === "number"));
  const factor = isShare(views[0]?.metric ?? "") ? 100 : 1;
  const traces = views
    .flatMap((view) => {
      const look = lookIn(answer, view.label);
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
          name: plain(view.label),
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
      why: isOver(answer) ? "No learning rate was tuned." : "No trial has ended yet.",
    };
  return {
    traces,
    layout: { hovermode: "closest" },
    x: { title: "learning rate", log: true },
    y: { title: `${words(views[0].metric)}${factor === 100 ? ", %" : ""}` },
    description: "Validation score of each trial against its learning rate.",
  };
}

/** Median steps to the target. */
export function target(answer, task) {
  const rows = task.to_target.filter((row) => row.runs);
  if (!rows.length) return { traces: [], why: "No run has ended yet." };
  const y = rows.map((_, position) => rows.length - 1 - position);
  const of = (key) => rows.map((row) => row[key]);
  const traces = rows.map((row, position) => {
    const look = lookIn(answer, row.label);
    return {
      type: "scatter",
      mode: "markers+text",
      showlegend: false,
      name: plain(row.label),
      x: [row.steps ?? 0],
      y: [y[position]],
      marker: { color: colour(look), size: 11, symbol: symbol(look), opacity: row.steps === null ? 0 : 1 },
      text: [`${row.reached} of ${row.runs} reached it${row.seconds === null ? "" : `, ${duration(row.seconds)}`}`],
      textposition: "middle right",
      hovertemplate: row.steps === null ? "no median: half of the runs or more missed it<extra></extra>" : "%{x} steps",
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
}

/** Time of a step against the cheapest optimizer. */
export function cost(answer, task) {
  const rows = task.cost.filter((row) => row.ratio !== null);
  if (!rows.length) return { traces: [], why: "No run has told its time yet." };
  const y = rows.map((_, position) => rows.length - 1 - position);
  const traces = rows.map((row, position) => ({
    type: "bar",
    orientation: "h",
    showlegend: false,
    name: plain(row.label),
    x: [row.ratio],
    y: [y[position]],
    width: 0.55,
    marker: { color: faded(colour(lookIn(answer, row.label)), 0.8) },
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

const short = (label) => plain(label.length > 26 ? `${label.slice(0, 25)}\u2026` : label);
