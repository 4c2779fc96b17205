// What a comparison's page says in words: its verdict, how far it is, what the verdict rests on.

import { fill, h } from "../../lib/dom.js";
import { duration, grouped, many } from "../../lib/format.js";
import { bar, named, section } from "../../components/parts.js";

const UNKNOWN = { colour: 6, dash: 0, marker: 0 };

export const isOver = (answer) => answer.status !== "running";

/** How the answer wants an optimizer drawn, by its label. */
export const lookIn = (answer, label) => answer.looks[label] ?? UNKNOWN;

/** An optimizer's sign beside its label. */
export const mark = (answer, label) => named(label, lookIn(answer, label));

/** What its files are called, without their endings. */
export const fileName = (answer) =>
  answer.name
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "-")
    .replace(/^-|-$/g, "") || "comparison";

/** A function that fills `element` with `make(value)` where the value is new: else what is read in there stays as it is. */
export function filler(element, make) {
  let last;
  return (value) => {
    const text = JSON.stringify(value);
    if (text !== last) fill(element, make(value));
    last = text;
  };
}

/** The verdict of each task; its first sentence is the answer, the others say how sure that is. */
export function verdictLines({ verdict, tasks }) {
  if (!verdict.length) return h("p", {}, "Nothing can be said yet.");
  return verdict.map((text) => {
    const label = tasks.length > 1 && tasks.map((one) => one.label).find((one) => text.startsWith(`${one}: `));
    const said = label ? text.slice(label.length + 2) : text;
    const [, first, rest] = /^(.+?[.!?])(\s+[A-Z].*)$/s.exec(said) ?? [null, said, ""];
    return h("p", {}, label && h("b", {}, label), first, rest && h("span", { class: "note" }, rest));
  });
}

/** How many runs have ended, and what the others do. */
export function progressLine(answer) {
  const now = answer.progress;
  const ended = now.succeeded + now.diverged + now.failed + now.cancelled;
  const most = isOver(answer) ? now.jobs : now.jobs_at_most;
  const counts = [
    [now.running, "running"],
    [now.queued, "waiting"],
    [now.diverged, "diverged"],
    [now.failed, "failed"],
    [now.cancelled, "cancelled"],
    [now.reused, "were there already"],
  ];
  const phase = { tuning: "Choosing parameters", reporting: "Reported runs", finished: "" }[now.phase];
  const note = (text) => h("span", { class: "note" }, text);
  return h(
    "div",
    { class: "part row" },
    h(
      "span",
      {},
      phase && `${phase}: `,
      h("strong", {}, `${grouped(ended)} of ${isOver(answer) ? "" : "at most "}${many(most, "run")}`),
      " ended",
    ),
    !isOver(answer) &&
      h(
        "span",
        { class: "cell-bar", style: { flex: "1 1 8rem" } },
        bar(most ? ended / most : 0, "progress of the comparison"),
      ),
    counts.filter(([count]) => count).map(([count, what]) => note(`${grouped(count)} ${what}`)),
    note(`${duration(now.seconds_used)} of device time`),
    !isOver(answer) && now.seconds_left !== null && note(`at most about ${duration(now.seconds_left)} to go`),
  );
}

/** The runs that a task's statistics leave out; nothing where there are none. */
export function leftOut({ left_out: { failed, cancelled, unfinished } }) {
  const counts = [
    [failed, "failed"],
    [cancelled, "cancelled"],
    [unfinished, "unfinished"],
  ].filter(([count]) => count);
  const text = counts.map(([count, what]) => `${count} ${what}`).join(", ");
  return text && h("p", { class: "note" }, `Not in the statistics: ${text}.`);
}

/** What the statistics assume, and whether it holds; nothing where nothing is assumed. */
export function assumptions(all) {
  if (!all.length) return null;
  const sign = (holds) => {
    if (holds === null) return { class: "open", title: "cannot be checked here", text: "?" };
    return holds
      ? { class: "held", title: "held", text: "\u2713" }
      : { class: "broken", title: "does not hold", text: "\u2715" };
  };
  return section(
    "What the verdict rests on",
    h(
      "ul",
      { class: "assumptions" },
      all.map((one) => {
        const { text, ...look } = sign(one.holds);
        return h("li", {}, h("span", look, text), h("span", {}, h("strong", {}, `${one.name}. `), one.text));
      }),
    ),
  );
}
