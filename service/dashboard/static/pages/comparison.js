// One comparison: its verdict, and everything that it stands on, filling in as the runs end.

import { download, get, post } from "../api.js";
import { fill, h, throttled } from "../dom.js";
import {
  ago,
  bytes,
  difference,
  duration,
  grouped,
  interval,
  isShare,
  many,
  measured,
  number,
  pValue,
  shortId,
  words,
} from "../format.js";
import { Figures } from "../figures.js";
import { intervalBar, scaleOf } from "../intervals.js";
import { follow } from "../live.js";
import { pictures } from "../pictures.js";
import { action, bar, chip, code, facts, named, section, table, tabs, toast } from "../parts.js";

export async function mount(root, { id, user, query, keepQuery, setTitle, signal }) {
  let answer = await get(`/v1/comparisons/${id}`, {}, signal);
  let shown = Math.min(answer.tasks.length, Math.max(1, Number(query.get("task") ?? 1)));
  setTitle(answer.name);
  const figures = new Figures({ id, query, keepQuery, signal });

  const head = h("div", { class: "head" });
  const verdict = h("div");
  const progress = h("div");
  const task = h("div", { class: "page" });
  const rest = h("div", { class: "page" });
  const live = h("span", { class: "live" }, "connecting");
  const cancelButton = action("Cancel", cancel, { kind: "danger small", confirm: "Really cancel?" }); // outlives a redraw

  const isOver = () => answer.status !== "running";
  const lookOf = (label) => answer.looks[label] ?? { colour: 6, dash: 0, marker: 0 };
  const mark = (label) => named(label, lookOf(label));

  const fileName = () =>
    answer.name
      .toLowerCase()
      .replace(/[^a-z0-9]+/g, "-")
      .replace(/^-|-$/g, "") || "comparison";

  function drawHead() {
    live.hidden = isOver();
    const mayCancel = !isOver() && (user.is_admin || user.user === answer.user);
    const file = (format, title, name) =>
      action(
        title,
        () =>
          download(`/v1/comparisons/${id}/report?format=${format}`, `${name}.${format === "latex" ? "tex" : format}`),
        { kind: "small" },
      );
    const name = fileName();
    fill(
      head,
      h("h1", {}, answer.name),
      chip(answer.status),
      live,
      h("span", { class: "space" }),
      h(
        "div",
        { class: "actions" },
        mayCancel && cancelButton,
        file("html", "Report", name),
        file("csv", "CSV", name),
        file("latex", "LaTeX", name),
        file("json", "JSON", name),
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
  }

  async function cancel() {
    await post(`/v1/comparisons/${id}/cancel`);
    toast("Cancelled; runs that others need go on.");
    await load();
  }

  function drawVerdict() {
    const labels = answer.tasks.map((one) => one.label);
    fill(
      verdict,
      h(
        "section",
        { class: "verdict", "aria-label": "Verdict", "aria-live": "polite" },
        answer.verdict.length
          ? answer.verdict.map((sentence) => {
              const about = labels.length > 1 && labels.find((label) => sentence.startsWith(`${label}: `));
              return h("p", {}, about && h("b", {}, about), about ? sentence.slice(about.length + 2) : sentence);
            })
          : h("p", {}, "Nothing can be said yet."),
      ),
    );
  }

  function drawProgress() {
    const now = answer.progress;
    const ended = now.succeeded + now.diverged + now.failed + now.cancelled;
    const most = isOver() ? now.jobs : now.jobs_at_most;
    const counts = [
      [now.running, "running"],
      [now.queued, "waiting"],
      [now.diverged, "diverged"],
      [now.failed, "failed"],
      [now.cancelled, "cancelled"],
      [now.reused, "were there already"],
    ];
    const phase = { tuning: "Choosing parameters", reporting: "Reported runs", finished: "" }[now.phase];
    fill(
      progress,
      h(
        "div",
        { class: "part row" },
        h(
          "span",
          {},
          phase && `${phase}: `,
          h("strong", {}, `${grouped(ended)} of ${isOver() ? "" : "at most "}${many(most, "run")}`),
          " ended",
        ),
        !isOver() &&
          h(
            "span",
            { class: "cell-bar", style: { flex: "1 1 8rem" } },
            bar(most ? ended / most : 0, "progress of the comparison"),
          ),
        counts
          .filter(([count]) => count)
          .map(([count, what]) => h("span", { class: "note" }, `${grouped(count)} ${what}`)),
        h("span", { class: "note" }, `${duration(now.seconds_used)} of device time`),
        !isOver() &&
          now.seconds_left !== null &&
          h("span", { class: "note" }, `at most about ${duration(now.seconds_left)} to go`),
      ),
    );
  }

  // --- a task ---
  function groupsTable(one) {
    const scale = scaleOf(one.groups);
    const best = one.verdict.decided ? one.verdict.best : null;
    const hasTarget = one.to_target.some((entry) => entry.runs);
    const target = Object.fromEntries(one.to_target.map((entry) => [entry.label, entry]));
    return table({
      label: `Scores on ${one.label}`,
      caption: `${words(one.metric)} of each optimizer's runs, one run a seed; intervals are 95 % t intervals of the mean.`,
      isStrong: (group) => group.label === best,
      columns: [
        { title: "Optimizer", kind: "head", cell: (group) => mark(group.label) },
        {
          title: "Seeds",
          cell: (group) => [
            String(group.n),
            group.diverged ? h("span", { class: "why", title: "diverged" }, ` (${group.diverged} diverged)`) : "",
          ],
        },
        {
          title: "Mean",
          cell: (group) => (group.mean === null ? waitingFor(group) : measured(group.mean, one.metric)),
        },
        {
          title: "",
          kind: "text",
          cell: (group) =>
            intervalBar(
              group,
              scale,
              lookOf(group.label),
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

  const waitingFor = (group) =>
    isOver()
      ? h("span", { class: "why", title: group.cannot_say ?? "" }, "no value")
      : h("span", { class: "why" }, "waiting");

  function pairsTable(one) {
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
      caption: `Mean paired differences of ${words(one.metric)}${isShare(one.metric) ? ", in percentage points" : ""}; decided at a family-wise error rate of 5 % over all ${grouped(answer.plan.pairs)} pairs.`,
      isStrong: (pair) => pair.significant,
      columns: [
        {
          title: "Pair",
          kind: "head",
          cell: (pair) =>
            h("span", { class: "chips" }, mark(pair.a), h("span", { class: "why" }, "\u2212"), mark(pair.b)),
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
              lookOf(pair.difference >= 0 ? pair.a : pair.b),
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
      ],
      rows: known,
    });
  }

  function tuningTable(one) {
    if (!one.tuning.length) return null;
    return table({
      label: `Tuning on ${one.label}`,
      caption: "Chosen on validation data; the test set was not read.",
      columns: [
        { title: "Optimizer", kind: "head", cell: (view) => mark(view.label) },
        {
          title: "Trials",
          cell: (view) =>
            `${view.trials.filter((trial) => trial.status !== "waiting").length} of ${view.trials.length}`,
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

  function costTable(one) {
    if (!one.cost.some((view) => view.milliseconds_per_step !== null))
      return h("p", { class: "note" }, "No run has told its time yet.");
    return table({
      label: `Cost on ${one.label}`,
      caption: one.cost.some((view) => view.shared)
        ? "Medians of one run. Some ran beside others on the same machine: compare times with care."
        : "Medians of one run.",
      columns: [
        { title: "Optimizer", kind: "head", cell: (view) => mark(view.label) },
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

  function drawTask() {
    const one = answer.tasks[shown - 1];
    const left = one.left_out;
    const outside = [
      [left.failed, "failed"],
      [left.cancelled, "cancelled"],
      [left.unfinished, "unfinished"],
    ]
      .filter(([count]) => count)
      .map(([count, what]) => `${count} ${what}`);
    fill(
      task,
      answer.tasks.length > 1 &&
        h(
          "div",
          { class: "picks", role: "group", "aria-label": "Task" },
          answer.tasks.map((other, position) =>
            h(
              "button",
              { type: "button", "aria-pressed": position + 1 === shown, onclick: () => choose(position + 1) },
              other.label,
            ),
          ),
        ),
      section(
        "Scores",
        groupsTable(one),
        outside.length > 0 && h("p", { class: "note" }, `Not in the statistics: ${outside.join(", ")}.`),
      ),
      section("Differences", pairsTable(one)),
      figures.element,
      one.tuning.length > 0 && section("Tuning", tuningTable(one)),
      section("Cost", costTable(one)),
    );
    figures.show(answer, shown);
  }

  function choose(number_) {
    shown = number_;
    keepQuery({ task: shown === 1 ? null : shown });
    drawTask();
  }

  // --- the rest ---
  const ofRun = [
    { title: "Job", kind: "head", cell: (run) => h("a", { href: `/jobs/${run.job}` }, shortId(run.job)) },
    { title: "Optimizer", kind: "text", cell: (run) => mark(run.label) },
    { title: "Task", kind: "text", cell: (run) => run.task },
    { title: "Seed", cell: (run) => String(run.seed) },
  ];

  function drawRest() {
    const signs = (holds) => (holds === null ? ["open", "?"] : holds ? ["held", "\u2713"] : ["broken", "\u2715"]);
    const across = answer.across;
    fill(
      rest,
      across &&
        across.ranks.length > 0 &&
        section(
          "All tasks together",
          across.sentences.map((sentence) => h("p", {}, sentence)),
          table({
            label: "Ranks",
            columns: [
              { title: "Optimizer", kind: "head", cell: (row) => mark(row.label) },
              { title: "Mean rank", cell: (row) => (row.mean_rank === null ? "\u2013" : row.mean_rank.toFixed(2)) },
              {
                title: "IQM",
                hint: "Interquartile mean of the runs' scores over all tasks",
                cell: (row) => measured(row.iqm, answer.plan.metric),
              },
              { title: "95 % interval", cell: (row) => interval(row.iqm_interval, answer.plan.metric) },
            ],
            rows: across.ranks,
          }),
        ),
      answer.assumptions.length > 0 &&
        section(
          "What the verdict rests on",
          h(
            "ul",
            { class: "assumptions" },
            answer.assumptions.map((one) =>
              h(
                "li",
                {},
                h(
                  "span",
                  {
                    class: signs(one.holds)[0],
                    title: { held: "held", broken: "does not hold", open: "cannot be checked here" }[
                      signs(one.holds)[0]
                    ],
                  },
                  signs(one.holds)[1],
                ),
                h("span", {}, h("strong", {}, `${one.name}. `), one.text),
              ),
            ),
          ),
        ),
      section(
        "How it was done",
        tabs([
          { name: "methods", title: "Methods", content: () => h("p", {}, answer.methods) },
          {
            name: "plan",
            title: "Plan",
            content: () => [
              facts([
                ["seeds", `${answer.plan.seeds[0]} to ${answer.plan.seeds.at(-1)}`],
                ["looks", answer.plan.looks.join(", ")],
                ["varied", answer.plan.vary.join(", ")],
                ["pairs", answer.plan.pairs],
                ["id", answer.id],
              ]),
              code({ tasks: answer.plan.tasks, optimizers: answer.plan.optimizers, tuning: answer.plan.tuning }),
            ],
          },
          { name: "pictures", title: "Pictures", content: () => pictures(`/v1/comparisons/${id}`, fileName(), signal) },
          {
            name: "reused",
            title: `Reused runs (${answer.reused.length})`,
            content: () =>
              answer.reused.length
                ? table({
                    label: "Reused runs",
                    columns: [...ofRun, { title: "User", kind: "text", cell: (run) => run.user }],
                    rows: answer.reused,
                  })
                : h("p", { class: "note" }, "Every run was made for this comparison."),
          },
          {
            name: "missing",
            title: `Missing runs (${answer.tasks.reduce((sum, one) => sum + one.missing.length, 0)})`,
            content: () => {
              const missing = answer.tasks.flatMap((one) => one.missing.map((run) => ({ ...run, task: one.label })));
              return missing.length
                ? table({
                    label: "Missing runs",
                    columns: [...ofRun, { title: "Why", kind: "wide", cell: (run) => run.why }],
                    rows: missing,
                  })
                : h("p", { class: "note" }, "None.");
            },
          },
        ]),
      ),
    );
  }

  function draw() {
    drawHead();
    drawVerdict();
    drawProgress();
    drawTask();
    drawRest();
  }

  async function load() {
    answer = await get(`/v1/comparisons/${id}`, {}, signal);
    draw();
  }

  fill(root, head, verdict, progress, task, rest);
  draw();
  if (isOver()) return;
  const refresh = throttled(
    () =>
      load().catch((error) => {
        if (error.name !== "AbortError" && !error.isAway) toast(error.message, "error");
      }),
    2000,
    signal,
  );
  follow(`/v1/comparisons/${id}/events`, {
    signal,
    onState: (isLive) => {
      live.classList.toggle("on", isLive);
      live.textContent = isLive ? "live" : "reconnecting";
    },
    onEvent: ({ type }) => ["status", "end"].includes(type) && refresh(),
  }).catch((error) => toast(error.message, "error"));
}
