// The tables of a comparison; those of a task get the comparison's answer and its part for the task.

import { intervalBar, scaleOf } from "../../components/interval_bar.js";
import { optimizerLabel } from "../../components/optimizer_label.js";
import { note } from "../../components/states.js";
import { table } from "../../components/table.js";
import { h } from "../../lib/dom.js";
import {
  bytes,
  deviation,
  difference,
  duration,
  fixed,
  hasPlannedLooks,
  integer,
  interval,
  isFraction,
  metricValue,
  number,
  pValue,
  shortId,
  title,
  words,
} from "../../lib/format.js";
import { isFinalComparison } from "../../lib/statuses.js";
import { comparisonStyle } from "../../lib/styles.js";

const NO_VALUE = "\u2013";

const optimizer = (answer, label) => optimizerLabel(label, comparisonStyle(answer, label));
const small = (text, title) => h("span", { class: "why", title }, text);

/** The scores of each optimizer's runs. */
export function scoresTable(answer, task) {
  const { metric, groups } = task;
  const scale = scaleOf(groups);
  const best = task.verdict.decided ? task.verdict.best : null;
  const reason = groups.every((group) => group.interval === null) && groups.find((group) => group.cannot_say);
  const intervals = reason ? `no intervals: ${reason.cannot_say}` : "intervals are 95 % t intervals of the mean";
  return table({
    label: `Scores on ${task.label}`,
    caption: `${title(metric)} of each optimizer's runs, one run per seed; ${intervals}.`,
    isStrong: (group) => group.label === best,
    columns: [
      { title: "Optimizer", kind: "head", cell: (group) => optimizer(answer, group.label) },
      {
        title: "Seeds",
        cell: (group) => [String(group.n), group.diverged > 0 && small(` (${group.diverged} diverged)`)],
      },
      {
        title: "Mean",
        cell: (group) => (group.mean === null ? missingMean(answer, group) : metricValue(group.mean, metric)),
      },
      { title: "", kind: "text", cell: (group) => meanBar(answer, group, scale, metric) },
      { title: "95 % interval", cell: (group) => interval(group.interval, metric) },
      { title: "SD", hint: "Standard deviation over seeds", cell: (group) => deviation(group.sd, metric) },
      { title: "Best run", cell: (group) => metricValue(group.best, metric) },
      task.to_target.some((entry) => entry.runs) && targetColumn(task),
    ],
    rows: groups,
  });
}

const missingMean = (answer, { cannot_say: reason }) =>
  isFinalComparison(answer) ? small("no value", reason ?? "") : small("pending");

function meanBar(answer, group, scale, metric) {
  const text = `${metricValue(group.mean, metric)}, interval ${interval(group.interval, metric)}`;
  return intervalBar(group, scale, comparisonStyle(answer, group.label), text);
}

function targetColumn(task) {
  const byLabel = new Map(task.to_target.map((entry) => [entry.label, entry]));
  return {
    title: "Target reached",
    hint: "Runs that reached the target, and their median number of steps",
    cell(group) {
      const entry = byLabel.get(group.label);
      if (!entry) return "";
      return `${entry.reached} of ${entry.runs}${entry.steps === null ? "" : `, ${number(entry.steps)} steps`}`;
    },
  };
}

/** The differences between each pair of optimizers; text if no pair has common runs. */
export function differencesTable(answer, task) {
  const pairs = task.pairs.filter((pair) => pair.difference !== null);
  if (!pairs.length) {
    const reason = task.pairs.find((pair) => pair.cannot_say)?.cannot_say;
    return note(reason ? `No pair can be compared: ${reason}.` : "No pair of optimizers has common runs yet.");
  }
  const { metric } = task;
  const scale = scaleOf(
    pairs.map((pair) => ({ mean: pair.difference, interval: pair.interval })),
    true,
  );
  const { pairs: family } = answer.plan;
  const intervals = hasPlannedLooks(answer.plan) ? "simultaneous" : "unadjusted";
  const level =
    family === 1
      ? "significance level 5 %"
      : `${intervals} intervals, significance at a family-wise error rate of 5 % over all ${integer(family)} pairs`;
  const unit = isFraction(metric) ? ", in percentage points" : "";
  return table({
    label: `Differences on ${task.label}`,
    caption: `Mean paired differences in ${words(metric)}${unit}; ${level}.`,
    isStrong: (pair) => pair.significant,
    columns: [
      { title: "Pair", kind: "head", cell: (pair) => pairLabel(answer, pair) },
      { title: "Seeds", cell: (pair) => String(pair.n) },
      { title: "Difference", cell: (pair) => difference(pair.difference, metric) },
      { title: "", kind: "text", cell: (pair) => differenceBar(answer, pair, scale, metric) },
      { title: "95 % interval", cell: (pair) => interval(pair.interval, metric, difference) },
      ...pColumns(pairs),
      { title: "Significant", kind: "text", cell: significance },
    ],
    rows: pairs,
  });
}

const pairLabel = (answer, { a, b }) =>
  h("span", { class: "chips" }, optimizer(answer, a), small("\u2212"), optimizer(answer, b));

function differenceBar(answer, pair, scale, metric) {
  const better = pair.difference >= 0 ? pair.a : pair.b;
  const text = `${difference(pair.difference, metric)}, interval ${interval(pair.interval, metric, difference)}`;
  const drawn = { mean: pair.difference, interval: pair.interval };
  return intervalBar(drawn, scale, comparisonStyle(answer, better), text);
}

const pColumns = (pairs) => [
  { title: "p", hint: "p value of this pair alone", cell: (pair) => pValue(pair.p) },
  { title: "Adjusted p", hint: "p value adjusted for all pairs tested together", cell: (pair) => pValue(pair.p_adjusted) },
  pairs.some((pair) => pair.detail.p_permutation !== null) && {
    title: "Permutation p",
    hint: "p value of a sign-flip permutation test, computed if the differences are skewed",
    cell: (pair) => pValue(pair.detail.p_permutation),
  },
];

function significance({ significant, seeds_needed: needed }) {
  if (significant) return "yes";
  return small(needed ? `no; about ${integer(needed)} seeds per optimizer needed` : "no");
}

/** The tuning of each optimizer: its trials and the chosen configuration. */
export const tuningTable = (answer, task) =>
  table({
    label: `Tuning on ${task.label}`,
    caption: "Chosen on validation data; the test set was not read.",
    columns: [
      { title: "Optimizer", kind: "head", cell: (view) => optimizer(answer, view.label) },
      {
        title: "Trials",
        cell: ({ trials }) => `${trials.filter((trial) => trial.status !== "waiting").length} of ${trials.length}`,
      },
      {
        title: "Chosen",
        kind: "wide",
        cell: ({ params }) => (params ? Object.entries(params).map(assignment).join(", ") : small("not yet")),
      },
      { title: "Score", cell: chosenScore },
      {
        title: "Good learning rates",
        kind: "text",
        hint: "Learning rates with a score close to the best",
        cell: goodRange,
      },
      {
        title: "At the edge",
        kind: "wide",
        hint: "Tuned hyperparameters whose chosen value is the lowest or highest tried",
        cell: (view) => view.at_edge.length > 0 && h("span", { class: "warned" }, view.at_edge.join(", ")),
      },
    ],
    rows: task.tuning,
  });

const assignment = ([name, value]) => `${name} ${typeof value === "number" ? number(value) : value}`;

function chosenScore({ chosen, trials, metric }) {
  return metricValue(trials.find((trial) => trial.trial === chosen)?.score, metric);
}

function goodRange({ good_range: range }) {
  if (!range || range.decades === null) return NO_VALUE;
  return `${number(range.low, 2)} to ${number(range.high, 2)} (${fixed(range.decades, 1)} decades)`;
}

/** The time and memory of each optimizer; text if no run has reported them. */
export function costTable(answer, task) {
  if (!task.cost.some((view) => view.milliseconds_per_step !== null)) return note("No run has reported its time yet.");
  const shared = " Other jobs may have run on the same devices: compare times with care.";
  return table({
    label: `Cost on ${task.label}`,
    caption: `Medians over the runs.${task.cost.some((view) => view.shared) ? shared : ""}`,
    columns: [
      { title: "Optimizer", kind: "head", cell: (view) => optimizer(answer, view.label) },
      {
        title: "Time per step",
        cell: ({ milliseconds_per_step: time }) => (time === null ? NO_VALUE : `${number(time, 3)} ms`),
      },
      {
        title: "Ratio",
        hint: "Relative to the fastest optimizer of the task",
        cell: (view) => (view.ratio === null ? NO_VALUE : fixed(view.ratio, 2)),
      },
      { title: "Training time", cell: (view) => duration(view.train_seconds) },
      { title: "Optimizer state", cell: (view) => bytes(view.optimizer_state_bytes) },
      { title: "Peak memory", cell: (view) => bytes(view.peak_bytes) },
    ],
    rows: task.cost,
  });
}

/** The optimizers by their rank over all tasks. */
export const ranksTable = (answer) =>
  table({
    label: "Ranks",
    columns: [
      { title: "Optimizer", kind: "head", cell: (row) => optimizer(answer, row.label) },
      { title: "Mean rank", cell: (row) => (row.mean_rank === null ? NO_VALUE : fixed(row.mean_rank, 2)) },
      {
        title: "IQM",
        hint: "Interquartile mean of the runs' scores over all tasks",
        cell: (row) => metricValue(row.iqm, answer.plan.metric),
      },
      { title: "95 % interval", cell: (row) => interval(row.iqm_interval, answer.plan.metric) },
    ],
    rows: answer.across.ranks,
  });

/** Single runs, with one more column. */
export const runsTable = (answer, label, rows, column) =>
  table({
    label,
    columns: [
      { title: "Job", kind: "head", cell: (run) => h("a", { href: `/jobs/${run.job}` }, shortId(run.job)) },
      { title: "Optimizer", kind: "text", cell: (run) => optimizer(answer, run.label) },
      { title: "Task", kind: "text", cell: (run) => run.task },
      { title: "Seed", cell: (run) => String(run.seed) },
      column,
    ],
    rows,
  });
