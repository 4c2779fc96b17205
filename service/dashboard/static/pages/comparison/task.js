// The tables and figures of one task; with several tasks, the user selects one.

import { ComparisonFigures } from "../../charts/comparison_figures.js";
import { section } from "../../components/layout.js";
import { fill, h } from "../../lib/dom.js";
import { costTable, differencesTable, scoresTable, tuningTable } from "./tables.js";
import { excludedRuns } from "./verdict.js";

export class Task {
  constructor({ id, query, keepQuery, signal }) {
    this.keepQuery = keepQuery;
    this.element = h("div", { class: "page" });
    this.figures = new ComparisonFigures({ id, query, keepQuery, signal });
    this.number = Math.max(1, Math.trunc(Number(query.get("task"))) || 1);
  }

  #select(answer, number) {
    this.number = number;
    this.keepQuery({ task: number === 1 ? null : number });
    this.draw(answer);
  }

  #picker(answer) {
    const button = ({ label }, position) =>
      h(
        "button",
        {
          type: "button",
          "aria-pressed": position + 1 === this.number,
          onclick: () => this.#select(answer, position + 1),
        },
        label,
      );
    return h("div", { class: "picks", role: "group", "aria-label": "Task" }, answer.tasks.map(button));
  }

  draw(answer) {
    this.number = Math.min(this.number, answer.tasks.length);
    const task = answer.tasks[this.number - 1];
    fill(
      this.element,
      answer.tasks.length > 1 && this.#picker(answer),
      section("Scores", scoresTable(answer, task), excludedRuns(task)),
      section("Differences", differencesTable(answer, task)),
      this.figures.element,
      task.tuning.length > 0 && section("Tuning", tuningTable(answer, task)),
      section("Cost", costTable(answer, task)),
    );
    this.figures.show(answer, this.number);
  }
}
