// The tables of a comparison: those of a task get the API's answer and the task's part of it.

import { isOver, lookIn, mark } from "./parts.js";
import { h } from "../../lib/dom.js";
import {
  bytes,
  difference,
  duration,
  grouped,
  interval,
  isShare,
  measured,
  number,
  pValue,
  shortId,
  words,
} from "../../lib/format.js";
import { intervalBar, scaleOf } from "../../components/interval_bar.js";
import { table } from "../../components/parts.js";

/** Each optimizer's runs in numbers. */
export function scores(answer, one) {
  const scale = scaleOf(one.groups);
  const best = one.verdict.decided ? one.verdict.best : null;
  const hasTarget = one.to_target.some((entry) => entry.runs);
  const target = Object.fromEntries(one.to_target.map((entry) => [entry.label, entry]));
  const why = one.groups.every((group) => group.interval === null) && one.groups.find((group) => group.cannot_say);
  return table({
    label: `Scores on ${one.label}`,
    caption: `${words(one.metric)} of each optimizer's runs, one run a seed; ${why ? `no intervals: ${why.cannot_say}` : "intervals are 95 % t intervals of the mean"}.`,
    isStrong: (group) => group.label === best,
    columns: [
      { title: "Optimizer", kind: "head", cell: (group) => mark(answer, group.label) },
      {
        title: "Seeds",
        cell: (group) => [
          String(group.n),
          group.diverged ? h("span", { class: "why", title: "diverged" }, ` (${group.diverged} diverged)`) : "",
        ],
      },
      {
        title: "Mean",
        cell: (group) => (group.mean === null ? noValue(answer, group) : measured(group.mean, one.metric)),
      },
      {
        title: "",
        kind: "text",
        cell: (group) =>
          intervalBar(
            group,
            scale,
            lookIn(answer, group.label),
            `${measured(group.mean, one.metric)}, interval ${interval(group.interval, one.metric)}`,
          ),
      },
      { title: "95 % interval", cell: (group) => interval(group.interval, one.metric) },
      {
        title: "SD",
        hint: "Standard deviation over seeds",
        cell: (group) =>
          group.sd === null ? "\u2013" : isShare(one.metric) ? (100 * group.sd).toFixed(2) : number(group.sd, 3),
      },
      { title: "Best", cell: (group) => measured(group.best, one.metric) },
      hasTarget && {
        title: "Target reached",
        hint: "Runs that reached the target, and the median of their steps",
        cell: (group) =>
          target[group.label]
            ? `${target[group.label].reached} of ${target[group.label].runs}${target[group.label].steps === null ? "" : `, ${number(target[group.label].steps)} steps`}`
            : "",
      },
    ].filter(Boolean),
    rows: one.groups,
  });
}

/** Each pair of optimizers; words where none has runs to compare. */
export function differences(answer, one) {
  const known = one.pairs.filter((pair) => pair.difference !== null);
  if (!known.length)
    return h(
      "p",
      { class: "note" },
      one.pairs.find((pair) => pair.cannot_say)?.cannot_say ?? "No two optimizers have runs to compare yet.",
    );
  const scale = scaleOf(
    known.map((pair) => ({ mean: pair.difference, interval: pair.interval })),
    true,
  );
  const show = (value) => difference(value, one.metric);
  return table({
    label: `Differences on ${one.label}`,
    caption: `Mean paired differences of ${words(one.metric)}${isShare(one.metric) ? ", in percentage points" : ""}; decided at a family-wise error rate of 5 % over ${answer.plan.pairs === 1 ? "this pair" : `all ${grouped(answer.plan.pairs)} pairs`}.`,
    isStrong: (pair) => pair.significant,
    columns: [
      {
        title: "Pair",
        kind: "head",
        cell: (pair) =>
          h(
            "span",
            { class: "chips" },
            mark(answer, pair.a),
            h("span", { class: "why" }, "\u2212"),
            mark(answer, pair.b),
          ),
      },
      { title: "Seeds", cell: (pair) => String(pair.n) },
      { title: "Difference", cell: (pair) => show(pair.difference) },
      {
        title: "",
        kind: "text",
        cell: (pair) =>
          intervalBar(
            { mean: pair.difference, interval: pair.interval },
            scale,
            lookIn(answer, pair.difference >= 0 ? pair.a : pair.b),
            `${show(pair.difference)}, interval ${interval(pair.interval, one.metric, show)}`,
          ),
      },
      { title: "95 % interval", cell: (pair) => interval(pair.interval, one.metric, show) },
      { title: "p", hint: "Of this pair alone", cell: (pair) => pValue(pair.p) },
      {
        title: "p adjusted",
        hint: "For all pairs that were tested together",
        cell: (pair) => pValue(pair.p_adjusted),
      },
      known.some((pair) => pair.detail.p_permutation !== null) && {
        title: "p permutation",
        hint: "Of a sign-flip permutation test, where the differences are skewed",
        cell: (pair) => pValue(pair.detail.p_permutation),
      },
      {
        title: "Decided",
        kind: "text",
        cell: (pair) =>
          pair.significant
            ? "yes"
            : pair.seeds_needed
              ? h("span", { class: "why" }, `no; about ${pair.seeds_needed} seeds would`)
              : h("span", { class: "why" }, "no"),
      },
    ].filter(Boolean),
    rows: known,
  });
}

/** What was tried and chosen for each optimizer. */
export function tuning(answer, one) {
  return table({
    label: `Tuning on ${one.label}`,
    caption: "Chosen on validation data; the test set was not read.",
    columns: [
      { title: "Optimizer", kind: "head", cell: (view) => mark(answer, view.label) },
      {
        title: "Trials",
        cell: (view) => `${view.trials.filter((trial) => trial.status !== "waiting").length} of ${view.trials.length}`,
      },
      {
        title: "Chosen",
        kind: "wide",
        cell: (view) =>
          view.params
            ? Object.entries(view.params)
                .map(([name, value]) => `${name} ${typeof value === "number" ? number(value) : value}`)
                .join(", ")
            : h("span", { class: "why" }, "not yet"),
      },
      {
        title: "Score",
        cell: (view) =>
          view.chosen === null
            ? "\u2013"
            : measured(view.trials.find((trial) => trial.trial === view.chosen)?.score ?? null, view.metric),
      },
      {
        title: "Good learning rates",
        kind: "text",
        cell: (view) =>
          view.good_range && view.good_range.decades !== null
            ? `${number(view.good_range.low, 2)} to ${number(view.good_range.high, 2)} (${view.good_range.decades.toFixed(1)} decades)`
            : "\u2013",
      },
      {
        title: "At the edge",
        kind: "wide",
        cell: (view) => (view.at_edge.length ? h("span", { class: "warned" }, view.at_edge.join(", ")) : ""),
      },
    ],
    rows: one.tuning,
  });
}

/** Time and memory of each optimizer; words where no run has told them. */
export function cost(answer, one) {
  if (!one.cost.some((view) => view.milliseconds_per_step !== null))
    return h("p", { class: "note" }, "No run has told its time yet.");
  return table({
    label: `Cost on ${one.label}`,
    caption: one.cost.some((view) => view.shared)
      ? "Medians of one run. Some ran beside others on the same machine: compare times with care."
      : "Medians of one run.",
    columns: [
      { title: "Optimizer", kind: "head", cell: (view) => mark(answer, view.label) },
      {
        title: "Time of a step",
        cell: (view) =>
          view.milliseconds_per_step === null ? "\u2013" : `${number(view.milliseconds_per_step, 3)} ms`,
      },
      {
        title: "Ratio",
        hint: "To the cheapest optimizer of the task",
        cell: (view) => (view.ratio === null ? "\u2013" : view.ratio.toFixed(2)),
      },
      { title: "Training time", cell: (view) => duration(view.train_seconds) },
      { title: "Optimizer state", cell: (view) => bytes(view.optimizer_state_bytes) },
      { title: "Peak memory", cell: (view) => bytes(view.peak_bytes) },
    ],
    rows: one.cost,
  });
}

const noValue = (answer, group) =>
  isOver(answer)
    ? h("span", { class: "why", title: group.cannot_say ?? "" }, "no value")
    : h("span", { class: "why" }, "waiting");

/** The optimizers by their rank over all tasks. */
export function ranks(answer) {
  return table({
    label: "Ranks",
    columns: [
      { title: "Optimizer", kind: "head", cell: (row) => mark(answer, row.label) },
      { title: "Mean rank", cell: (row) => (row.mean_rank === null ? "\u2013" : row.mean_rank.toFixed(2)) },
      {
        title: "IQM",
        hint: "Interquartile mean of the runs' scores over all tasks",
        cell: (row) => measured(row.iqm, answer.plan.metric),
      },
      { title: "95 % interval", cell: (row) => interval(row.iqm_interval, answer.plan.metric) },
    ],
    rows: answer.across.ranks,
  });
}

/** Single runs, with one more column. */
export function runs(answer, label, rows, column) {
  return table({
    label,
    columns: [
      { title: "Job", kind: "head", cell: (run) => h("a", { href: `/jobs/${run.job}` }, shortId(run.job)) },
      { title: "Optimizer", kind: "text", cell: (run) => mark(answer, run.label) },
      { title: "Task", kind: "text", cell: (run) => run.task },
      { title: "Seed", cell: (run) => String(run.seed) },
      column,
    ],
    rows,
  });
}
