// The background of the verdict: results over all tasks, assumptions, methods, plan, files and runs.

import { figureFiles } from "../../components/figure_files.js";
import { code, facts, section } from "../../components/layout.js";
import { note } from "../../components/states.js";
import { tabs } from "../../components/tabs.js";
import { h } from "../../lib/dom.js";
import { looksText } from "../../lib/format.js";
import { fileName } from "./head.js";
import { ranksTable, runsTable } from "./tables.js";
import { updater } from "./updater.js";
import { assumptionsView } from "./verdict.js";

export class Background {
  #across = h("div");
  #assumptions = h("div");
  #methods = h("p");
  #plan = h("div");
  #reused = h("div");
  #missing = h("div");
  #reusedTitle = h("span");
  #missingTitle = h("span");

  constructor(answer, { query, keepQuery, signal }) {
    Object.assign(this, { answer, signal });
    this.drawAcross = updater(this.#across, (across) => acrossView(this.answer, across));
    this.drawAssumptions = updater(this.#assumptions, assumptionsView);
    this.drawMethods = updater(this.#methods, (text) => text);
    this.drawPlan = updater(this.#plan, (plan) => planView(this.answer.id, plan));
    this.drawReused = updater(this.#reused, (runs) => reusedView(this.answer, runs));
    this.drawMissing = updater(this.#missing, (runs) => missingView(this.answer, runs));
    const views = this.#tabs(query.get("tab"), keepQuery);
    this.element = h("div", { class: "page" }, this.#across, this.#assumptions, section("Details", views));
  }

  /** The tabs are made once and only their content changes, so that the scroll position is kept. */
  #tabs(selected, keepQuery) {
    const files = () => figureFiles(`/v1/comparisons/${this.answer.id}`, fileName(this.answer), this.signal);
    return tabs(
      "Details",
      [
        { name: "methods", title: "Methods", content: () => this.#methods },
        { name: "plan", title: "Plan", content: () => this.#plan },
        { name: "pictures", title: "Figure files", content: files },
        { name: "reused", title: this.#reusedTitle, content: () => this.#reused },
        { name: "missing", title: this.#missingTitle, content: () => this.#missing },
      ],
      selected,
      (name) => keepQuery({ tab: name === "methods" ? null : name }),
    );
  }

  draw(answer) {
    this.answer = answer;
    const missing = answer.tasks.flatMap((task) => task.missing.map((run) => ({ ...run, task: task.label })));
    this.drawAcross(answer.across);
    this.#across.hidden = this.#across.childElementCount === 0;
    this.drawAssumptions(answer.assumptions);
    this.#assumptions.hidden = this.#assumptions.childElementCount === 0;
    this.drawMethods(answer.methods);
    this.drawPlan(answer.plan);
    this.drawReused(answer.reused);
    this.drawMissing(missing);
    this.#reusedTitle.textContent = `Reused runs (${answer.reused.length})`;
    this.#missingTitle.textContent = `Missing runs (${missing.length})`;
  }
}

const acrossView = (answer, across) =>
  across?.ranks.length > 0 &&
  section(
    "All tasks",
    across.sentences.map((sentence) => h("p", {}, sentence)),
    ranksTable(answer),
  );

const planView = (id, { seeds, vary, pairs, tasks, optimizers, tuning, ...plan }) => [
  facts([
    ["seeds", `${seeds[0]} to ${seeds.at(-1)}`],
    ["looks", looksText(plan)],
    ["split of the data", vary.includes("split") ? "a new one for each seed" : "one for all seeds"],
    ["pairs", pairs],
    ["id", id],
  ]),
  code({ tasks, optimizers, tuning }),
];

const reusedView = (answer, runs) =>
  runs.length
    ? runsTable(answer, "Reused runs", runs, { title: "User", kind: "text", cell: (run) => run.user })
    : note("No runs were reused.");

const missingView = (answer, runs) =>
  runs.length
    ? runsTable(answer, "Missing runs", runs, { title: "Reason", kind: "wide", cell: (run) => run.why })
    : note("No runs are missing.");
