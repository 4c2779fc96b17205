// One comparison: its verdict, and everything that it stands on, filling in as the runs end.

import { download, get, post } from "../../lib/api.js";
import { assumptions, fileName, filler, isOver, leftOut, progressLine, verdictLines } from "./parts.js";
import { cost, differences, ranks, runs, scores, tuning } from "./tables.js";
import { fill, h } from "../../lib/dom.js";
import { Figures } from "../../charts/comparison_figures.js";
import { ago } from "../../lib/format.js";
import { follow } from "../../lib/event_stream.js";
import { pictures } from "../../components/figure_files.js";
import { action, chip, code, facts, liveSign, section, tabs, toast } from "../../components/parts.js";
import { refresher } from "../../lib/refresher.js";

export async function mount(root, { id, user, query, keepQuery, setTitle, signal }) {
  const look = () => get(`/v1/comparisons/${id}`, {}, signal);
  let answer = await look();
  setTitle(answer.name);
  const head = headOf(id, user, () => refresh());
  const said = h("section", { class: "verdict", "aria-label": "Verdict", "aria-live": "polite" });
  const verdict = filler(said, verdictLines); // it stays in its place: readers are told only of what changes in there
  const progress = h("div");
  const task = taskOf({ id, query, keepQuery, signal });
  const rest = restOf(answer, { query, keepQuery, signal });

  function draw(found) {
    answer = found;
    head.draw(answer);
    verdict({ verdict: answer.verdict, tasks: answer.tasks.map(({ label }) => ({ label })) });
    fill(progress, progressLine(answer));
    task.draw(answer);
    rest.draw(answer);
  }

  const refresh = refresher(look, draw, { milliseconds: 2000, signal });
  fill(root, head.element, said, progress, task.element, rest.element);
  draw(answer);
  if (isOver(answer)) return;
  follow(`/v1/comparisons/${id}/events`, {
    signal,
    onState: head.onState,
    onEvent: ({ type }) => ["status", "end"].includes(type) && refresh(),
  }).catch((error) => toast(error.message, "error"));
}

/** Its name and state, and what can be done with it; `refresh` is called after a change. */
function headOf(id, user, refresh) {
  const element = h("div", { class: "head" });
  const { live, onState } = liveSign();
  // Made once: a button that asks whether one is sure must outlive the next look.
  const cancelButton = action("Cancel", cancel, { kind: "danger small", confirm: "Really cancel?" });

  async function cancel() {
    await post(`/v1/comparisons/${id}/cancel`);
    toast("Cancelled; runs that others need go on.");
    refresh();
  }

  const file = (answer, title, format, ending = format) =>
    action(title, () => download(`/v1/comparisons/${id}/report?format=${format}`, `${fileName(answer)}.${ending}`), {
      kind: "small",
    });

  return {
    element,
    onState,
    draw(answer) {
      live.hidden = isOver(answer);
      fill(
        element,
        h("h1", {}, answer.name),
        chip(answer.status),
        live,
        h("span", { class: "space" }),
        h(
          "div",
          { class: "actions" },
          !isOver(answer) && (user.is_admin || user.user === answer.user) && cancelButton,
          file(answer, "Report", "html"),
          file(answer, "CSV", "csv"),
          file(answer, "LaTeX", "latex", "tex"),
          file(answer, "JSON", "json"),
        ),
        h(
          "p",
          { class: "sub" },
          `asked by ${answer.user} ${ago(answer.created_at)}`,
          Object.entries(answer.tags).map(([key, value]) => ` \u00b7 ${key}:${value}`),
          " \u00b7 ",
          h("a", { href: `/jobs?comparison=${id}` }, "its jobs"),
        ),
        answer.message && h("p", { class: "sub wrong" }, answer.message),
      );
    },
  };
}

/** Tables and figures of one task, which can be chosen where there are more. */
function taskOf({ id, query, keepQuery, signal }) {
  const element = h("div", { class: "page" });
  const figures = new Figures({ id, query, keepQuery, signal });
  let shown = Math.max(1, Math.trunc(Number(query.get("task"))) || 1);

  function choose(answer, number) {
    shown = number;
    keepQuery({ task: shown === 1 ? null : shown });
    draw(answer);
  }

  function draw(answer) {
    shown = Math.min(shown, answer.tasks.length);
    const one = answer.tasks[shown - 1];
    fill(
      element,
      answer.tasks.length > 1 &&
        h(
          "div",
          { class: "picks", role: "group", "aria-label": "Task" },
          answer.tasks.map(({ label }, position) =>
            h(
              "button",
              { type: "button", "aria-pressed": position + 1 === shown, onclick: () => choose(answer, position + 1) },
              label,
            ),
          ),
        ),
      section("Scores", scores(answer, one), leftOut(one)),
      section("Differences", differences(answer, one)),
      figures.element,
      one.tuning.length > 0 && section("Tuning", tuning(answer, one)),
      section("Cost", cost(answer, one)),
    );
    figures.show(answer, shown);
  }

  return { element, draw };
}

/** What all tasks say together, what that rests on, and how it was done. */
function restOf(first, { query, keepQuery, signal }) {
  let answer = first;
  const across = h("div");
  const basis = h("div");
  const methods = h("p");
  const plan = h("div");
  const reused = h("div");
  const missing = h("div");
  const reusedTitle = h("span");
  const missingTitle = h("span");
  const none = (text) => h("p", { class: "note" }, text);

  const drawAcross = filler(
    across,
    (found) =>
      found?.ranks.length > 0 &&
      section(
        "All tasks together",
        found.sentences.map((sentence) => h("p", {}, sentence)),
        ranks(answer),
      ),
  );
  const drawBasis = filler(basis, assumptions);
  const drawMethods = filler(methods, (text) => text);
  const drawPlan = filler(plan, ({ seeds, looks, vary, pairs, tasks, optimizers, tuning: tuned }) => [
    facts([
      ["seeds", `${seeds[0]} to ${seeds.at(-1)}`],
      ["looks", looks.join(", ")],
      ["varied", vary.join(", ")],
      ["pairs", pairs],
      ["id", answer.id],
    ]),
    code({ tasks, optimizers, tuning: tuned }),
  ]);
  const drawReused = filler(reused, (found) =>
    found.length
      ? runs(answer, "Reused runs", found, { title: "User", kind: "text", cell: (run) => run.user })
      : none("Every run was made for this comparison."),
  );
  const drawMissing = filler(missing, (found) =>
    found.length
      ? runs(answer, "Missing runs", found, { title: "Why", kind: "wide", cell: (run) => run.why })
      : none("None."),
  );

  // The tabs are made once and what is in them changes, so that a reader keeps the place.
  const views = tabs(
    "How it was done",
    [
      { name: "methods", title: "Methods", content: () => methods },
      { name: "plan", title: "Plan", content: () => plan },
      {
        name: "pictures",
        title: "Pictures",
        content: () => pictures(`/v1/comparisons/${answer.id}`, fileName(answer), signal),
      },
      { name: "reused", title: reusedTitle, content: () => reused },
      { name: "missing", title: missingTitle, content: () => missing },
    ],
    query.get("tab"),
    (name) => keepQuery({ tab: name === "methods" ? null : name }),
  );

  function draw(found) {
    answer = found;
    const absent = answer.tasks.flatMap((one) => one.missing.map((run) => ({ ...run, task: one.label })));
    drawAcross(answer.across);
    across.hidden = across.childElementCount === 0;
    drawBasis(answer.assumptions);
    basis.hidden = basis.childElementCount === 0;
    drawMethods(answer.methods);
    drawPlan(answer.plan);
    drawReused(answer.reused);
    drawMissing(absent);
    reusedTitle.textContent = `Reused runs (${answer.reused.length})`;
    missingTitle.textContent = `Missing runs (${absent.length})`;
  }

  return { element: h("div", { class: "page" }, across, basis, section("How it was done", views)), draw };
}
