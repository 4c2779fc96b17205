// The form for a comparison, with its plan beside it: number of runs, device time and methods.

import { folded, pageHead, section } from "../../components/layout.js";
import { CardList } from "../../forms/card_list.js";
import { DryRunForm, parseObject } from "../../forms/dry_run_form.js";
import { showFieldErrors, showPartErrors } from "../../forms/errors.js";
import { fieldGrid, stack } from "../../forms/layout.js";
import { catalogOfForms } from "../../forms/model_entries.js";
import { defined } from "../../forms/training_fields.js";
import { get } from "../../lib/api.js";
import { fill } from "../../lib/dom.js";
import { optimizerCard } from "./optimizer_card.js";
import { planView } from "./plan.js";
import { Settings } from "./settings.js";
import { taskCard } from "./task_card.js";

const RATES = { lr: { log_uniform: [0.0003, 0.03] } };
const INITIAL = {
  tasks: [{ dataset: "digits", model: "mlp", budget: { epochs: 30 } }],
  optimizers: [
    { name: "adam", space: RATES },
    { name: "ko", params: { base: "adam", collision: "soft" }, space: RATES },
  ],
  tuning: { trials: 8 },
  seeds: { max: 10, looks: [5, 10] },
};
const ADDED_OPTIMIZER = { name: "sgd", space: { lr: { log_uniform: [0.003, 0.3] } } };

export async function mount(root, { go, query, keepQuery, signal }) {
  const [catalog, document] = await Promise.all([catalogOfForms(signal), get("/openapi.json", {}, signal)]);
  const request = new ComparisonForm(catalog, document.components.schemas, () => form.changed());
  const form = new DryRunForm("/v1/comparisons", {
    submitTitle: "Start comparison",
    value: () => request.value(),
    showErrors: (errors) => request.showErrors(errors),
    plan: planView,
    onCreated: (comparison) => go(`/comparisons/${comparison.id}`),
    keepQuery,
    signal,
  });
  const sub =
    "The plan is fixed before the first run. All optimizers get the same seeds, and tuned ones the same number of trials (except in a grid search).";
  fill(
    root,
    pageHead("Compare optimizers", { sub }),
    form.element(request.view(), () => request.fit()),
  );
  request.set(query.get("spec") ? parseObject(query.get("spec"), INITIAL) : INITIAL);
  await form.check();
}

/** The content of the form. `onChange` is called for changes that fire no input event. */
class ComparisonForm {
  constructor(catalog, schemas, onChange) {
    this.settings = new Settings(schemas);
    this.tasks = new CardList("Add a task", {
      make: (task = INITIAL.tasks[0]) => taskCard(catalog, schemas, task),
      title: (position, count) => (count > 1 ? `Task ${position + 1}` : "Task"),
      onChange,
    });
    this.optimizers = new CardList("Add an optimizer", {
      make: (optimizer = ADDED_OPTIMIZER) => optimizerCard(catalog, optimizer, onChange),
      title: (position) => `Optimizer ${position + 1}`,
      onChange,
    });
  }

  /** Offer the hyperparameters of the selected optimizers and variants for tuning. */
  fit() {
    for (const card of this.optimizers.cards) card.fit();
  }

  /** The request's body. */
  value() {
    const optimizers = this.optimizers.values();
    const isTuned = optimizers.some((optimizer) => optimizer.space);
    const { name, ...settings } = this.settings.value(isTuned);
    return defined({ name, tasks: this.tasks.values(), optimizers, ...settings });
  }

  set(request) {
    const listOr = (value, usual) => (Array.isArray(value) ? value : usual);
    for (const task of listOr(request.tasks, INITIAL.tasks)) this.tasks.add(task);
    for (const optimizer of listOr(request.optimizers, INITIAL.optimizers)) this.optimizers.add(optimizer);
    this.settings.set(request);
  }

  showErrors(errors) {
    const parts = { ...this.settings.parts, ...this.tasks.parts("tasks"), ...this.optimizers.parts("optimizers") };
    return showFieldErrors(this.settings.single, showPartErrors(parts, errors));
  }

  view() {
    const { name, seeds, looks, metric, vary, trials, method, tags } = this.settings.fields;
    return [
      section("Optimizers", this.optimizers.element),
      section("Tasks", this.tasks.element),
      section("Statistics", fieldGrid([seeds, looks, metric, vary])),
      section("Tuning", fieldGrid([trials, method])),
      section(
        "Further settings",
        stack(fieldGrid([name, tags]), folded("Reuse, diverged runs, limits", fieldGrid(this.settings.more))),
      ),
    ];
  }
}
