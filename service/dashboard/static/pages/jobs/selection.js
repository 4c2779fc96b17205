// The chosen ones of the list of jobs, and what can be done with all of them at once.

import { post } from "../../lib/api.js";
import { fill, h } from "../../lib/dom.js";
import { many } from "../../lib/format.js";
import { action, toast } from "../../components/parts.js";

const MOST_AT_ONCE = 500; // that the API takes

/** What is chosen, and what can be done with all of it at once. `onChange` is called when the choice changed. */
export class Selection {
  chosen = new Set();
  #shown = [];
  #buttonsOf = "";
  #isActing = false;

  /** `act` gets what to do and the ids. */
  constructor(act, onChange) {
    this.act = act;
    this.onChange = onChange;
    this.every = h("input", { type: "checkbox", onchange: () => this.chooseAll(this.every.checked) });
    this.words = h("span", {}, "Choose all shown");
    this.buttons = h("span", { class: "row" });
    this.element = h(
      "div",
      { class: "select-bar" },
      h("label", { class: "row" }, this.every, this.words),
      this.buttons,
    );
  }

  choose(id, isChosen) {
    this.chosen[isChosen ? "add" : "delete"](id);
    this.draw();
  }

  chooseAll(isChosen) {
    this.chosen = new Set(isChosen ? this.#shown : []);
    this.draw();
  }

  /** The ids that are shown now: nobody means those that are not. */
  show(ids) {
    this.#shown = ids;
    const shown = new Set(ids);
    for (const id of this.chosen) if (!shown.has(id)) this.chosen.delete(id);
    this.draw();
  }

  draw() {
    const count = this.chosen.size;
    this.every.checked = count > 0 && count === this.#shown.length;
    this.every.indeterminate = count > 0 && !this.every.checked;
    this.words.textContent = count ? `${many(count, "job")} chosen` : "Choose all shown";
    this.#drawButtons();
    this.onChange();
  }

  /** A button that asks whether one is sure, or that works, must outlive what happens to the list meanwhile. */
  #drawButtons() {
    const ids = [...this.chosen];
    if (this.#isActing || ids.join() === this.#buttonsOf) return;
    this.#buttonsOf = ids.join();
    fill(
      this.buttons,
      ids.length > 0 && [
        action("Cancel them", () => this.#do("cancel", ids), {
          kind: "small danger",
          confirm: `Really cancel ${ids.length}?`,
        }),
        action("Retry them", () => this.#do("retry", ids), { kind: "small" }),
      ],
    );
  }

  async #do(what, ids) {
    this.#isActing = true;
    try {
      await this.act(what, ids);
      this.chosen = new Set();
    } finally {
      this.#isActing = false;
      this.draw();
    }
  }
}

export async function act(what, ids) {
  let done = 0;
  const refused = [];
  for (let start = 0; start < ids.length; start += MOST_AT_ONCE) {
    const answer = await post("/v1/jobs/actions", { action: what, jobs: ids.slice(start, start + MOST_AT_ONCE) });
    for (const outcome of answer.outcomes) outcome.done ? (done += 1) : refused.push(outcome);
  }
  const verb = what === "cancel" ? "cancelled or asked to stop" : "submitted again";
  toast(
    `${many(done, "job")} ${verb}${refused.length ? `; ${refused.length} left alone: ${refused[0].detail}` : "."}`,
    refused.length && !done ? "error" : "note",
  );
}
