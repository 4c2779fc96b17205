// The page of a comparison, which is updated as its runs finish.

import { toastError } from "../../components/toast.js";
import { get } from "../../lib/api.js";
import { fill, h } from "../../lib/dom.js";
import { follow } from "../../lib/event_stream.js";
import { refresher } from "../../lib/refresher.js";
import { isFinalComparison } from "../../lib/statuses.js";
import { Background } from "./background.js";
import { ComparisonHead } from "./head.js";
import { Task } from "./task.js";
import { updater } from "./updater.js";
import { progressView, verdictView } from "./verdict.js";

export async function mount(root, { id, user, query, keepQuery, setTitle, signal }) {
  const fetchAnswer = () => get(`/v1/comparisons/${id}`, {}, signal);
  const answer = await fetchAnswer();
  setTitle(answer.name);
  const view = new ComparisonView(answer, { id, user, query, keepQuery, signal, onChange: () => refresh() });
  const refresh = refresher(fetchAnswer, (changed) => view.draw(changed), {
    milliseconds: 2000,
    signal,
    onError: toastError,
  });
  fill(root, view.elements());
  view.draw(answer);
  if (isFinalComparison(answer)) return;
  follow(`/v1/comparisons/${id}/events`, {
    signal,
    onState: view.onState,
    onEvent: ({ type }) => ["status", "end"].includes(type) && refresh(),
  }).catch(toastError);
}

class ComparisonView {
  #verdict = h("section", { class: "verdict", "aria-label": "Verdict", "aria-live": "polite" });
  #progress = h("div");

  /** `onChange` is called after the user cancelled the comparison. */
  constructor(answer, { id, user, query, keepQuery, signal, onChange }) {
    this.head = new ComparisonHead(id, user, onChange);
    this.task = new Task({ id, query, keepQuery, signal });
    this.background = new Background(answer, { query, keepQuery, signal });
    this.onState = this.head.onState;
    this.drawVerdict = updater(this.#verdict, verdictView); // screen readers announce only what changes in it
  }

  elements() {
    return [this.head.element, this.head.editor.element, this.#verdict, this.#progress, this.task.element, this.background.element];
  }

  draw(answer) {
    this.head.draw(answer);
    const { verdict, tasks, plan } = answer;
    this.drawVerdict({ verdict, tasks: tasks.map(({ label }) => ({ label })), warnings: plan.warnings });
    fill(this.#progress, progressView(answer));
    this.task.draw(answer);
    this.background.draw(answer);
  }
}
