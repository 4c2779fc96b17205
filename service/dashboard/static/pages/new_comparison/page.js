// A form for a comparison, with its plan beside it: how many runs, how long, and what could be decided.

import { Submission, get, post } from "../../lib/api.js";
import { debounced, fill, h, uniqueId } from "../../lib/dom.js";
import { duration, grouped, many } from "../../lib/format.js";
import { cardHead, fieldGrid, folded, kept, parsed, refusal, refuseParts } from "../../forms/layout.js";
import { Choice, asNumber, fieldOf, refuseIn, selectField, tagsField, textField } from "../../forms/fields.js";
import { action, code, facts, section, toast } from "../../components/parts.js";
import { Budget, Target } from "../../forms/quantity.js";
import { Space } from "../../forms/search_space.js";

const TASK_MORE = [
  "batch_size",
  "precision",
  "device",
  "gradient_clip",
  "eval_every_steps",
  "log_every_steps",
  "diagnostics_every_steps",
];
const STARTED = {
  tasks: [{ dataset: "digits", model: "mlp", budget: { epochs: 30 } }],
  optimizers: [
    { name: "adam", space: { lr: { log_uniform: [0.0003, 0.03] } } },
    { name: "ko", params: { base: "adam", collision: "soft" }, space: { lr: { log_uniform: [0.0003, 0.03] } } },
  ],
  tuning: { trials: 8 },
  seeds: { max: 10, looks: [5, 10] },
};
const listed = (found, usual) => (Array.isArray(found) ? found : usual);

export async function mount(root, { go, query, keepQuery, signal }) {
  const [catalog, document] = await Promise.all([get("/v1/catalog", {}, signal), get("/openapi.json", {}, signal)]);
  const defs = document.components.schemas;
  const properties = defs.ComparisonRequest.properties;
  const submission = new Submission();
  const look = debounced(check, 400);
  const tasks = [];
  const optimizers = [];
  const taskList = h("div", { class: "choice" });
  const optimizerList = h("div", { class: "choice" });

  // --- a task ---
  function addTask(given = STARTED.tasks[0]) {
    const dataset = new Choice("dataset", "Data set", catalog.datasets, { onChange: () => fit() });
    const model = new Choice("model", "Model", catalog.models);
    const schedule = new Choice("schedule", "Schedule of the learning rate", catalog.schedules);
    const budget = new Budget();
    const target = new Target();
    const simple = TASK_MORE.map((name) => fieldOf(name, defs.TaskRequest.properties[name], defs));
    const fit = () =>
      model.offer(catalog.models.filter((entry) => [entry.reads, ...entry.also_reads].includes(dataset.entry?.kind)));
    const parts = { dataset, model, schedule, budget, target };
    const title = h("span");
    const task = {
      element: h(
        "div",
        { class: "card" },
        cardHead(title, () => removed(tasks, task, drawTasks)),
        h("div", { class: "columns" }, dataset.element, model.element),
        fieldGrid([budget, target]),
        h(
          "details",
          {},
          h("summary", {}, "Schedule, batch size, precision, measuring"),
          h("div", { class: "choice" }, schedule.element, fieldGrid(simple)),
        ),
      ),
      title,
      value() {
        const found = {
          dataset: dataset.value(),
          model: model.value(),
          budget: budget.value(),
          schedule: schedule.value(),
          target: target.value(),
        };
        if (found.schedule === "constant") delete found.schedule;
        for (const one of simple) found[one.name] = one.value();
        return kept(found);
      },
      refuse(errors) {
        return refuseIn(simple, refuseParts(parts, errors));
      },
    };
    for (const [name, value] of Object.entries(given)) {
      if (parts[name]) parts[name].set(value);
      else simple.find((one) => one.name === name)?.set(value);
      if (name === "dataset") fit();
    }
    fit();
    tasks.push(task);
    drawTasks();
  }

  function drawTasks() {
    tasks.forEach((task, position) => fill(task.title, tasks.length > 1 ? `Task ${position + 1}` : "Task"));
    fill(
      taskList,
      tasks.map((task) => task.element),
    );
  }

  // --- an optimizer ---
  function addOptimizer(given = { name: "sgd", space: { lr: { log_uniform: [0.003, 0.3] } } }) {
    const choice = new Choice("optimizer", "Optimizer", catalog.optimizers);
    const label = textField("label", "Label", { help: "What tables call it; made from what it is where empty." });
    const space = new Space({
      onChange: () => {
        fit();
        look();
      },
    });
    const wrong = h("p", { class: "wrong" });
    const title = h("span");

    /** What is tuned has no fixed value, and only what the optimizer has can be tuned. */
    function fit() {
      space.offer(choice.params.tunable());
      choice.params.tune(space.names());
    }

    const optimizer = {
      title,
      fit,
      element: h(
        "div",
        { class: "card" },
        cardHead(title, () => removed(optimizers, optimizer, drawOptimizers)),
        h("div", { class: "columns" }, choice.element, label.element),
        h(
          "div",
          { class: "choice" },
          h("span", { class: "label" }, "Tuned parameters"),
          h(
            "p",
            { class: "note" },
            "Chosen on validation data, with as many trials as every other tuned optimizer. Those that are not tuned keep the values above.",
          ),
          space.element,
        ),
        wrong,
      ),
      value() {
        const { name, params } = typeof choice.value() === "string" ? { name: choice.value() } : choice.value();
        return kept({ name, params, space: space.value(), label: label.value() });
      },
      refuse(errors) {
        const left = refuseIn([label], refuseParts({ params: choice.params, space }, errors));
        fill(wrong, left.map((error) => `${error.pointer.slice(1).replaceAll("/", ", ")}: ${error.detail}`).join("; "));
        return [];
      },
    };
    const asked = typeof given === "string" ? { name: given } : given;
    choice.set(asked);
    label.set(asked.label);
    fit();
    for (const [name, range] of Object.entries(asked.space ?? {})) space.add(name, range);
    optimizers.push(optimizer);
    drawOptimizers();
  }

  function drawOptimizers() {
    optimizers.forEach((optimizer, position) => fill(optimizer.title, `Optimizer ${position + 1}`));
    fill(
      optimizerList,
      optimizers.map((optimizer) => optimizer.element),
    );
  }

  function removed(list, one, drawAgain) {
    list.splice(list.indexOf(one), 1);
    drawAgain();
    look();
  }

  // --- the rest ---
  const name = textField("name", "Name", {
    help: "What reports are titled with.",
    placeholder: "KO against Adam, digits",
  });
  const seeds = textField("max", "Seeds", { help: "Runs of each optimizer at most." });
  const looks = textField("looks", "Looks", {
    help: "Numbers of seeds at which to stop where the verdict is clear, such as 5, 10; `any`: after each; empty: one look at the end.",
  });
  const metric = selectField(
    "metric",
    "Endpoint",
    properties.metric.enum.map((value) => [value, value]),
    { help: properties.metric.description },
  );
  const trials = textField("trials", "Trials", { help: "Points of the search space that each tuned optimizer gets." });
  const method = selectField(
    "method",
    "Method",
    [
      ["quasi_random", "quasi-random"],
      ["halving", "successive halving"],
      ["grid", "grid of all choices"],
    ],
    { help: "How the points are tried." },
  );
  const vary = selectField(
    "vary",
    "Varied",
    [
      ["seed", "the seed"],
      ["seed,split", "the seed and the split of the data"],
    ],
    { help: "With the split a verdict reaches beyond one split of the data." },
  );
  const tags = tagsField();
  const others = ["reuse", "diverged_score", "priority", "time_limit_seconds", "max_failures"].map((one) =>
    fieldOf(one, properties[one], defs),
  );
  const whole = (text) => (text === undefined ? undefined : asNumber(text));
  const lookList = (text) => (text === undefined ? undefined : text === "any" ? "any" : text.split(",").map(asNumber));

  function body() {
    const isTuned = optimizers.some((one) => one.value().space);
    const found = {
      name: name.value(),
      tasks: tasks.map((task) => task.value()),
      optimizers: optimizers.map((one) => one.value()),
      seeds: kept({ max: whole(seeds.value()), looks: lookList(looks.value()) }),
      tuning: isTuned
        ? kept({
            trials: whole(trials.value()),
            method: method.value() === "quasi_random" ? undefined : method.value(),
          })
        : undefined,
      metric: metric.value() === properties.metric.default ? undefined : metric.value(),
      vary: vary.value() === "seed" ? undefined : vary.value().split(","),
      tags: tags.value(),
    };
    for (const one of others) found[one.name] = one.value();
    return kept(found);
  }

  function set(given) {
    name.set(given.name);
    listed(given.tasks, STARTED.tasks).forEach((one) => addTask(one));
    listed(given.optimizers, STARTED.optimizers).forEach((one) => addOptimizer(one));
    seeds.set(given.seeds?.max ?? 10);
    looks.set([given.seeds?.looks ?? ""].flat().join(", "));
    trials.set(given.tuning?.trials ?? "");
    method.set(given.tuning?.method ?? "quasi_random");
    metric.set(given.metric ?? properties.metric.default);
    vary.set([given.vary ?? "seed"].flat().join(","));
    if (given.tags) tags.set(given.tags);
    for (const one of others) if (given[one.name] !== undefined) one.set(given[one.name]);
  }

  // --- the plan ---
  const told = h("div", { "aria-live": "polite" });
  const plan = h("div"); // too long to be read out after each change
  const formId = uniqueId("form");
  const button = h("button", { class: "primary", type: "submit", form: formId }, "Start the comparison");
  const general = h("p", { class: "wrong", role: "alert" });

  function refuse(errors) {
    const parts = {
      seeds: { refuse: (own) => refuseIn([seeds, looks], own) },
      tuning: {
        refuse: (own) =>
          refuseIn(
            [trials, method],
            own.map((error) => (error.pointer === "/" ? { ...error, pointer: "/trials" } : error)),
          ),
      },
      ...Object.fromEntries(tasks.map((task, position) => [`tasks/${position}`, task])),
      ...Object.fromEntries(optimizers.map((one, position) => [`optimizers/${position}`, one])),
    };
    const left = refuseIn([name, metric, vary, tags, ...others], refuseParts(parts, errors));
    fill(general, left.map((error) => `${error.pointer} ${error.detail}`).join("; "));
  }

  let asked = 0;
  async function check() {
    if (!tasks.length && !optimizers.length) return;
    const mine = (asked += 1);
    const given = body();
    keepQuery({ spec: JSON.stringify(given) });
    try {
      const answer = await post("/v1/comparisons?dry_run=true", given, { signal });
      if (mine !== asked) return;
      refuse([]);
      fill(
        told,
        h("h2", {}, "The plan"),
        h(
          "dl",
          { class: "numbers" },
          h(
            "div",
            {},
            h("dt", {}, "Runs"),
            h(
              "dd",
              {},
              answer.jobs_at_least === answer.jobs_at_most
                ? grouped(answer.jobs_at_most)
                : `${grouped(answer.jobs_at_least)} to ${grouped(answer.jobs_at_most)}`,
            ),
          ),
          h(
            "div",
            {},
            h("dt", {}, "Device time"),
            h(
              "dd",
              {},
              answer.seconds_at_most === null ? "?" : duration(answer.seconds_at_most),
              answer.seconds_at_most === null && h("small", {}, " no run like it yet"),
            ),
          ),
        ),
      );
      fill(
        plan,
        h("div", { class: "space" }),
        facts([
          ["there already", answer.reused ? many(answer.reused, "run") : ""],
          ["pairs", answer.plan.pairs],
          ["looks after", answer.plan.looks.length > 1 ? `${answer.plan.looks.join(", ")} seeds` : ""],
        ]),
        h("h3", {}, "As a paper may tell it"),
        h("p", { class: "note" }, answer.methods),
        h("details", {}, h("summary", {}, "The request"), code(given)),
      );
    } catch (error) {
      if (error.name === "AbortError" || mine !== asked) return;
      refuse(error.fields ?? []);
      fill(told, refusal(error));
      fill(plan);
    }
  }

  async function send(event) {
    event.preventDefault();
    button.disabled = true;
    try {
      const comparison = await submission.send("/v1/comparisons", body());
      await go(`/comparisons/${comparison.id}`);
    } catch (error) {
      if (error.name === "AbortError") return;
      refuse(error.fields ?? []);
      toast(error.fields?.length ? "Some fields need another value." : error.message, "error");
      root.querySelector('[aria-invalid="true"]')?.focus();
    } finally {
      button.disabled = false;
    }
  }

  const chosen = () => {
    for (const one of optimizers) one.fit();
    look();
  };
  const form = h(
    "form",
    { id: formId, onsubmit: send, oninput: look, onchange: chosen, novalidate: true },
    h(
      "div",
      { class: "page" },
      section(
        "What is compared",
        h(
          "div",
          { class: "choice" },
          optimizerList,
          h(
            "div",
            { class: "actions" },
            action("Add an optimizer", async () => {
              addOptimizer();
              look();
            }),
          ),
        ),
      ),
      section(
        "On what",
        h(
          "div",
          { class: "choice" },
          taskList,
          h(
            "div",
            { class: "actions" },
            action("Add a task", async () => {
              addTask();
              look();
            }),
          ),
        ),
      ),
      section("How it is judged", fieldGrid([seeds, looks, metric, vary])),
      section("How parameters are chosen", fieldGrid([trials, method])),
      section(
        "Everything else",
        h(
          "div",
          { class: "choice" },
          fieldGrid([name, tags]),
          folded("Reuse, diverged runs, limits", fieldGrid(others)),
        ),
      ),
      general,
    ),
  );
  fill(
    root,
    h(
      "div",
      { class: "head" },
      h("h1", {}, "Compare optimizers"),
      h(
        "p",
        { class: "sub" },
        "The plan is fixed before the first run. Each optimizer gets the same seeds and the same number of trials.",
      ),
    ),
    h(
      "div",
      { class: "side" },
      form,
      h("div", { class: "part beside" }, h("div", { class: "actions" }, button), told, plan),
    ),
  );
  set(query.get("spec") ? parsed(query.get("spec"), STARTED) : STARTED);
  await check();
}
