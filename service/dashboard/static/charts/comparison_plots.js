// The plots of a comparison other than curves, from the API's answer and its part for a task.

import { counted, duration, fixed, isFraction, metricValue, number, words } from "../lib/format.js";
import { isFinalComparison } from "../lib/statuses.js";
import { comparisonStyle, plotlyColor, plotlyDash, plotlySymbol } from "../lib/styles.js";
import { escaped, faded } from "./plotly.js";

const MAX_LABEL = 26; // characters of a label on an axis
const GOLDEN = 0.618; // golden ratio: steps of this size modulo 1 keep neighboring dots apart
const SPREAD = 0.28; // vertical spread of the dots of a row

const shortened = (label) => escaped(label.length > MAX_LABEL ? `${label.slice(0, MAX_LABEL - 1)}\u2026` : label);

const noRuns = (answer) => ({
  message: isFinalComparison(answer) ? "No run has a final score." : "No run has finished yet.",
});

/** A y axis with one row per label, the first on top. */
const rowAxis = (labels) => ({
  tickvals: labels.map((_, position) => rowOf(labels, position)),
  ticktext: labels.map(shortened),
  range: [-0.6, labels.length - 0.4],
  showgrid: false,
  zeroline: false,
  ticks: "",
});

const rowOf = (labels, position) => labels.length - 1 - position;

const axisTitle = (metric) => `${words(metric)}${isFraction(metric) ? ", %" : ""}`;

/** Each run's score as a dot, above the mean of its optimizer. */
export function scoresPlot(answer, task, { metric, finals }) {
  if (!finals.length) return noRuns(answer);
  const groups = task.groups.filter((group) => finals.some((run) => run.label === group.label));
  const labels = groups.map((group) => group.label);
  const summary = ({ label, mean, n }) => `${label}: mean ${metricValue(mean, metric)} of ${counted(n, "run")}`;
  return {
    traces: groups.flatMap((group, position) => {
      const runs = finals.filter((run) => run.label === group.label);
      const style = comparisonStyle(answer, group.label);
      const options = { metric, style, row: rowOf(labels, position) };
      return [runDots(group, runs, options), ...(group.mean === null ? [] : [meanMark(group, options)])];
    }),
    legend: false,
    height: Math.max(200, 70 + 46 * groups.length),
    layout: { hovermode: "closest" },
    x: { title: axisTitle(metric) },
    y: rowAxis(labels),
    description: groups.map(summary).join("; "),
  };
}

function runDots(group, runs, { metric, style, row }) {
  const factor = isFraction(metric) ? 100 : 1;
  const offset = (position) => (runs.length > 1 ? SPREAD * ((position * GOLDEN) % 1) - SPREAD / 2 : 0);
  return {
    type: "scatter",
    mode: "markers",
    name: escaped(group.label),
    showlegend: false,
    x: runs.map((run) => factor * run.value),
    y: runs.map((_, position) => row + 0.1 + offset(position)),
    marker: { color: faded(plotlyColor(style), 0.65), size: 7, symbol: plotlySymbol(style) },
    hovertemplate: isFraction(metric) ? "%{x:.2f} %" : "%{x:.4~g}",
  };
}

function meanMark({ mean, interval }, { metric, style, row }) {
  const factor = isFraction(metric) ? 100 : 1;
  const color = plotlyColor(style);
  const errorBar = interval && {
    type: "data",
    symmetric: false,
    array: [factor * (interval[1] - mean)],
    arrayminus: [factor * (mean - interval[0])],
    color,
    thickness: 2,
    width: 5,
  };
  return {
    type: "scatter",
    mode: "markers",
    showlegend: false,
    x: [factor * mean],
    y: [row - 0.26],
    marker: { color, size: 9, symbol: "line-ns", line: { color, width: 2.5 } },
    error_x: errorBar ?? undefined,
    hovertemplate: `mean ${metricValue(mean, metric)}<extra></extra>`,
  };
}

const hasRate = (trial) => typeof trial.params.lr === "number";

/** The validation score of each trial against its learning rate. */
export function learningRatesPlot(answer, task) {
  const tuned = task.tuning.filter((view) => view.trials.some(hasRate));
  if (!tuned.length) return { message: "No learning rate was tuned." };
  const traces = tuned.map((view) => trialTrace(answer, view)).filter((trace) => trace.x.length);
  if (!traces.length)
    return { message: isFinalComparison(answer) ? "No trial has a score." : "No trial has a score yet." };
  return {
    traces,
    layout: { hovermode: "closest" },
    x: { title: "learning rate", log: true },
    y: { title: axisTitle(tuned[0].metric) },
    description: "Validation score of each trial against its learning rate.",
  };
}

function trialTrace(answer, { label, metric, trials: all, chosen }) {
  const style = comparisonStyle(answer, label);
  const color = plotlyColor(style);
  const factor = isFraction(metric) ? 100 : 1;
  const trials = all
    .filter((trial) => trial.score !== null && hasRate(trial))
    .sort((a, b) => a.params.lr - b.params.lr);
  const isOnlyParameter = Object.keys(trials[0]?.params ?? {}).length === 1;
  const byChoice = (ifChosen, otherwise) => trials.map((trial) => (trial.trial === chosen ? ifChosen : otherwise));
  return {
    type: "scatter",
    mode: isOnlyParameter ? "lines+markers" : "markers",
    name: escaped(label),
    x: trials.map((trial) => trial.params.lr),
    y: trials.map((trial) => factor * trial.score),
    line: { color, width: 1.5, dash: plotlyDash(style) },
    marker: {
      color,
      size: byChoice(12, 7),
      symbol: plotlySymbol(style),
      line: { color, width: byChoice(3, 0) },
      opacity: byChoice(1, 0.75),
    },
  };
}

/** The median number of steps to the target. */
export function targetPlot(answer, task) {
  const rows = task.to_target.filter((row) => row.runs);
  if (!rows.length) return noRuns(answer);
  const labels = rows.map((row) => row.label);
  const steps = rows.map((row) => row.steps).filter((value) => value !== null);
  const reached = (row) => `${row.reached} of ${row.runs} reached it`;
  const trace = (row, position) => {
    const style = comparisonStyle(answer, row.label);
    const isReached = row.steps !== null;
    return {
      type: "scatter",
      mode: "markers+text",
      showlegend: false,
      name: escaped(row.label),
      x: [row.steps ?? 0],
      y: [rowOf(labels, position)],
      marker: { color: plotlyColor(style), size: 11, symbol: plotlySymbol(style), opacity: isReached ? 1 : 0 },
      text: [`${reached(row)}${row.seconds === null ? "" : `, ${duration(row.seconds)}`}`],
      textposition: "middle right",
      hovertemplate: isReached ? "%{x} steps" : "no median: at least half of the runs missed it<extra></extra>",
    };
  };
  return {
    traces: rows.map(trace),
    legend: false,
    height: Math.max(180, 70 + 40 * rows.length),
    layout: { hovermode: "closest" },
    x: { title: "median number of steps", range: [0, 1.9 * Math.max(...steps, 1)] },
    y: rowAxis(labels),
    description: rows.map((row) => `${row.label}: ${reached(row)}`).join("; "),
  };
}

/** The time per step relative to the fastest optimizer. */
export function costPlot(answer, task) {
  const rows = task.cost.filter((row) => row.ratio !== null);
  if (!rows.length) return { message: "No run has reported its time yet." };
  const labels = rows.map((row) => row.label);
  const trace = (row, position) => ({
    type: "bar",
    orientation: "h",
    showlegend: false,
    name: escaped(row.label),
    x: [row.ratio],
    y: [rowOf(labels, position)],
    width: 0.55,
    marker: { color: faded(plotlyColor(comparisonStyle(answer, row.label)), 0.8) },
    text: [`${fixed(row.ratio, 2)}  (${number(row.milliseconds_per_step, 3)} ms)`],
    textposition: "outside",
    cliponaxis: false,
    hoverinfo: "skip",
  });
  return {
    traces: rows.map(trace),
    legend: false,
    height: Math.max(180, 70 + 40 * rows.length),
    layout: { hovermode: false },
    x: {
      title: "time per step, relative to the fastest",
      range: [0, 1.35 * Math.max(...rows.map((row) => row.ratio))],
    },
    y: rowAxis(labels),
    description: rows.map((row) => `${row.label} ${fixed(row.ratio, 2)}`).join(", "),
  };
}
