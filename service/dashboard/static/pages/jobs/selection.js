// The selected jobs of the list, and the actions on all of them.

import { actionButton } from "../../components/buttons.js";
import { toast } from "../../components/toast.js";
import { post } from "../../lib/api.js";
import { fill, h } from "../../lib/dom.js";
import { counted, integer } from "../../lib/format.js";

const MAX_JOBS = 500; // per request, the API's limit
const DONE = { cancel: "cancelled or asked to stop", retry: "submitted again" };
const NONE_DONE = { cancel: "No job was cancelled", retry: "No job was submitted again" };

export class Selection {
  ids = new Set();
  #shown = [];
  #buttonsFor = ""; // ids that the buttons act on
  #isActing = false;

  /** `onAction` is called after an action on the jobs, `onChange` when another set of jobs is selected. */
  constructor({ onAction, onChange }) {
    Object.assign(this, { onAction, onChange });
    this.all = h("input", { type: "checkbox", onchange: () => this.selectAll(this.all.checked) });
    this.label = h("span", {}, "Select all shown");
    this.buttons = h("span", { class: "row" });
    const label = h("label", { class: "row" }, this.all, this.label);
    this.element = h("div", { class: "select-bar" }, label, this.buttons);
  }

  select(id, isSelected) {
    this.ids[isSelected ? "add" : "delete"](id);
    this.#draw();
  }

  selectAll(isSelected) {
    this.ids = new Set(isSelected ? this.#shown : []);
    this.#draw();
  }

  /** Set the visible jobs; others are deselected. */
  show(ids) {
    this.#shown = ids;
    const shown = new Set(ids);
    for (const id of this.ids) if (!shown.has(id)) this.ids.delete(id);
    this.#draw();
  }

  #draw() {
    const { size } = this.ids;
    this.all.checked = size > 0 && size === this.#shown.length;
    this.all.indeterminate = size > 0 && !this.all.checked;
    this.label.textContent = size ? `${counted(size, "job")} selected` : "Select all shown";
    this.#drawButtons();
    this.onChange();
  }

  /** Replace the buttons only for another selection: those that wait for confirmation must survive list updates. */
  #drawButtons() {
    const ids = Array.from(this.ids);
    if (this.#isActing || ids.join() === this.#buttonsFor) return;
    this.#buttonsFor = ids.join();
    fill(
      this.buttons,
      ids.length > 0 && [
        actionButton("Cancel selected", () => this.#act("cancel", ids), {
          kind: "small danger",
          confirm: `Click again to cancel ${counted(ids.length, "job")}`,
        }),
        actionButton("Retry selected", () => this.#act("retry", ids), { kind: "small" }),
      ],
    );
  }

  async #act(action, ids) {
    this.#isActing = true;
    try {
      await act(action, ids);
      await this.onAction();
      this.ids = new Set();
    } finally {
      this.#isActing = false;
      this.#draw();
    }
  }
}

/** Cancel or retry jobs, and show the number of changed and refused ones. */
async function act(action, ids) {
  const outcomes = [];
  for (let start = 0; start < ids.length; start += MAX_JOBS) {
    const answer = await post("/v1/jobs/actions", { action, jobs: ids.slice(start, start + MAX_JOBS) });
    outcomes.push(...answer.outcomes);
  }
  const refused = outcomes.filter((outcome) => !outcome.done);
  const done = outcomes.length - refused.length;
  toast(outcomeText(action, done, refused), refused.length && !done ? "error" : "note");
}

/** The number of changed jobs, and the reason why one was refused. */
function outcomeText(action, done, refused) {
  const changed = `${counted(done, "job")} ${DONE[action]}`;
  if (!refused.length) return `${changed}.`;
  const reason = `${refused.length > 1 ? ". First reason: " : ": "}${refused[0].detail}.`;
  return done ? `${changed}, ${integer(refused.length)} unchanged${reason}` : `${NONE_DONE[action]}${reason}`;
}
