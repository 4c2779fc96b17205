// A form for one job, with what it would become beside it.

import { Submission, get, post } from "../../lib/api.js";
import { debounced, fill, h, uniqueId } from "../../lib/dom.js";
import { fieldGrid, folded, kept, parsed, refusal, refuseParts } from "../../forms/layout.js";
import { Choice, fieldOf, refuseIn, tagsField } from "../../forms/fields.js";
import { code, section, toast } from "../../components/parts.js";
import { Budget, Target } from "../../forms/quantity.js";

const MORE = [
  "precision",
  "device",
  "gradient_clip",
  "eval_every_steps",
  "log_every_steps",
  "diagnostics_every_steps",
  "stop_at_target",
  "evaluate_test",
  "priority",
  "time_limit_seconds",
  "memory_limit_bytes",
  "max_failures",
];
const BESIDE_THE_SPEC = ["tags", "priority", "time_limit_seconds", "memory_limit_bytes", "max_failures"];
const STARTED = { dataset: "digits", model: "mlp", optimizer: { name: "ko", params: {} }, budget: { epochs: 30 } };

export async function mount(root, { go, query, keepQuery, signal }) {
  const from = query.get("from");
  const [catalog, document, earlier] = await Promise.all([
    get("/v1/catalog", {}, signal),
    get("/openapi.json", {}, signal),
    from ? get(`/v1/jobs/${encodeURIComponent(from)}`, {}, signal) : null,
  ]);
  const schema = document.components.schemas.JobRequest;
  const defs = document.components.schemas;
  const submission = new Submission();

  const look = debounced(check, 350);
  const dataset = new Choice("dataset", "Data set", catalog.datasets, { onChange: fit });
  const model = new Choice("model", "Model", catalog.models);
  const optimizer = new Choice("optimizer", "Optimizer", catalog.optimizers);
  const schedule = new Choice("schedule", "Schedule of the learning rate", catalog.schedules);
  const budget = new Budget();
  const target = new Target();
  const tags = tagsField();
  const batchSize = fieldOf("batch_size", schema.properties.batch_size, defs);
  const seed = fieldOf("seed", schema.properties.seed, defs);
  const others = MORE.map((name) => fieldOf(name, schema.properties[name], defs));
  const simple = [batchSize, seed, tags, ...others];

  function fit() {
    const reads = dataset.entry?.kind;
    model.offer(catalog.models.filter((entry) => [entry.reads, ...entry.also_reads].includes(reads)));
  }

  function body() {
    const found = {
      dataset: dataset.value(),
      model: model.value(),
      optimizer: optimizer.value(),
      schedule: schedule.value(),
      budget: budget.value(),
      target: target.value(),
    };
    for (const one of simple) found[one.name] = one.value();
    if (found.schedule === "constant") delete found.schedule;
    return kept(found);
  }

  function set(given) {
    for (const [name, value] of Object.entries(given)) {
      if (value === null || value === undefined) continue;
      if (name === "dataset") {
        dataset.set(value);
        fit();
      } else if (name === "model") model.set(value);
      else if (name === "optimizer") optimizer.set(value);
      else if (name === "schedule") schedule.set(value);
      else if (name === "budget") budget.set(value);
      else if (name === "target") target.set(value);
      else simple.find((one) => one.name === name)?.set(value);
    }
  }

  // --- the plan beside it ---
  const told = h("div", { "aria-live": "polite" });
  const plan = h("div"); // too long to be read out after each change
  const formId = uniqueId("form");
  const button = h("button", { class: "primary", type: "submit", form: formId }, "Submit");
  const general = h("p", { class: "wrong", role: "alert" });

  function refuse(errors) {
    const left = refuseIn(simple, refuseParts({ dataset, model, optimizer, schedule, budget, target }, errors));
    fill(general, left.map((error) => `${error.pointer} ${error.detail}`).join("; "));
  }

  let asked = 0;
  async function check() {
    const mine = (asked += 1);
    const given = body();
    keepQuery({ spec: JSON.stringify(given), from: null });
    try {
      const answer = await post("/v1/jobs?dry_run=true", given, { signal });
      if (mine !== asked) return;
      refuse([]);
      fill(
        told,
        h("h2", {}, "What will run"),
        h("p", { class: "note" }, "Every default made explicit. The same in a script:"),
      );
      fill(
        plan,
        h("details", {}, h("summary", {}, "The request"), code(given)),
        h("div", { class: "space" }),
        code(answer.spec),
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
      const job = await submission.send("/v1/jobs", body());
      await go(`/jobs/${job.id}`);
    } catch (error) {
      if (error.name === "AbortError") return;
      refuse(error.fields ?? []);
      toast(error.fields?.length ? "Some fields need another value." : error.message, "error");
      root.querySelector('[aria-invalid="true"]')?.focus();
    } finally {
      button.disabled = false;
    }
  }

  const form = h(
    "form",
    {
      id: formId,
      onsubmit: send,
      oninput: look,
      onchange: look,
      novalidate: true,
    },
    h(
      "div",
      { class: "page" },
      section("What is trained", h("div", { class: "columns" }, dataset.element, model.element)),
      section("By which optimizer", h("div", { class: "columns" }, optimizer.element, schedule.element)),
      section("For how long", fieldGrid([budget, batchSize, seed, target, tags])),
      section("Everything else", folded("Precision, device, measuring, limits", fieldGrid(others))),
      general,
    ),
  );
  fill(
    root,
    h(
      "div",
      { class: "head" },
      h("h1", {}, earlier ? "A variation of a job" : "New job"),
      earlier &&
        h(
          "p",
          { class: "sub" },
          "Started from ",
          h("a", { href: `/jobs/${from}` }, from.slice(-8)),
          ". Change what you want to vary.",
        ),
    ),
    h(
      "div",
      { class: "side" },
      form,
      h("div", { class: "part beside" }, h("div", { class: "actions" }, button), told, plan),
    ),
  );
  set(STARTED);
  if (earlier) set({ ...earlier.spec, ...Object.fromEntries(BESIDE_THE_SPEC.map((name) => [name, earlier[name]])) });
  else if (query.get("spec")) set(parsed(query.get("spec"), {}));
  await check();
}
