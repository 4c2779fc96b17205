// The verdict of a comparison, its progress, and the assumptions of its statistics.

import { section } from "../../components/layout.js";
import { note, warningTexts } from "../../components/states.js";
import { progressBar } from "../../components/status.js";
import { h } from "../../lib/dom.js";
import { counted, duration, integer, title } from "../../lib/format.js";
import { isFinalComparison } from "../../lib/statuses.js";

const PHASES = { tuning: "Tuning", reporting: "Final runs", finished: "" };

/** The verdict of each task: its first sentence is the result, the others qualify it. Then the plan's warnings. */
export const verdictView = ({ verdict, tasks, warnings }) => [
  verdict.length ? verdict.map((text) => verdictOfTask(text, tasks)) : h("p", {}, "No verdict yet."),
  warningTexts(warnings),
];

function verdictOfTask(text, tasks) {
  const task = tasks.length > 1 && tasks.find(({ label }) => text.startsWith(`${label}: `));
  const label = task && task.label;
  const sentences = label ? text.slice(label.length + 2) : text;
  const [, first, rest] = /^(.+?[.!?])(\s+[A-Z].*)$/s.exec(sentences) ?? [null, sentences, ""];
  return h("p", {}, label && h("b", {}, label), first, rest && h("span", { class: "note" }, rest));
}

/** The number of ended runs, and the states of the others. */
export function progressView(answer) {
  const { progress } = answer;
  const isRunning = !isFinalComparison(answer);
  const ended = progress.succeeded + progress.diverged + progress.failed + progress.cancelled;
  const total = isRunning ? progress.jobs_at_most : progress.jobs;
  const phase = PHASES[progress.phase];
  const limit = isRunning ? "at most " : "";
  const remarks = [
    ...stateCounts(progress).map(([count, state]) => `${integer(count)} ${state}`),
    `${duration(progress.seconds_used)} of device time`,
    isRunning && progress.seconds_left !== null && `at most ${duration(progress.seconds_left)} left (estimate)`,
  ];
  return h(
    "div",
    { class: "part row" },
    h(
      "span",
      {},
      phase && `${phase}: `,
      h("strong", {}, `${integer(ended)} of ${limit}${counted(total, "run")}`),
      " ended",
    ),
    isRunning &&
      h(
        "span",
        { class: "cell-bar", style: { flex: "1 1 8rem" } },
        progressBar(total ? ended / total : 0, "Progress of the comparison"),
      ),
    remarks.filter(Boolean).map((text) => h("span", { class: "note" }, text)),
  );
}

const stateCounts = (progress) =>
  [
    [progress.running, "running"],
    [progress.queued, "queued"],
    [progress.diverged, "diverged"],
    [progress.failed, "failed"],
    [progress.cancelled, "cancelled"],
    [progress.reused, "reused"],
  ].filter(([count]) => count);

/** The runs excluded from a task's statistics; nothing if there are none. */
export function excludedRuns({ left_out: { failed, cancelled, unfinished } }) {
  const counts = Object.entries({ failed, cancelled, unfinished }).filter(([, count]) => count);
  const text = counts.map(([state, count]) => `${count} ${state}`).join(", ");
  return text && note(`Excluded from the statistics: ${text}.`);
}

const CHECKS = {
  true: { class: "held", title: "holds", text: "\u2713" },
  false: { class: "broken", title: "warning", text: "!" },
  null: { class: "open", title: "not checked, or too early to say", text: "?" },
};

/** The assumptions of the statistics and whether they hold; nothing if there are none. */
export function assumptionsView(assumptions) {
  if (!assumptions.length) return null;
  return section("Statistical assumptions", h("ul", { class: "assumptions" }, assumptions.map(assumptionItem)));
}

function assumptionItem({ name, text, holds }) {
  const { text: sign, ...attributes } = CHECKS[holds];
  return h("li", {}, h("span", attributes, sign), h("span", {}, h("strong", {}, `${title(name)}. `), text));
}
