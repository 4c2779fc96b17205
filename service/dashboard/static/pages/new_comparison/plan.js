// The plan of a comparison, from the answer to a dry run.

import { facts, numberTile, numbers } from "../../components/layout.js";
import { note, warningTexts } from "../../components/states.js";
import { h } from "../../lib/dom.js";
import { counted, duration, integer, looksText } from "../../lib/format.js";

export const planView = (answer) => ({
  summary: [
    h("h2", {}, "Plan"),
    numbers(
      numberTile("Runs", runCount(answer)),
      answer.seconds_at_most === null
        ? numberTile("Device time", "?", "no similar run yet")
        : numberTile("Device time", duration(answer.seconds_at_most), "at most"),
    ),
    warningTexts(answer.plan.warnings),
  ],
  details: [
    h("div", { class: "space" }),
    facts([
      ["reused", answer.reused ? counted(answer.reused, "run") : ""],
      ["pairs", answer.plan.pairs],
      ["looks", looksText(answer.plan)],
    ]),
    h("h3", {}, "Methods paragraph for your paper"),
    note(answer.methods),
  ],
});

function runCount({ jobs_at_least: least, jobs_at_most: most }) {
  return least === most ? integer(most) : `${integer(least)} to ${integer(most)}`;
}
