// A form beside the result of its dry run, which is updated while the user types.

import { actions, code, folded } from "../components/layout.js";
import { errorText } from "../components/states.js";
import { toast } from "../components/toast.js";
import { Submission, post } from "../lib/api.js";
import { fill, h, uniqueId } from "../lib/dom.js";
import { counted } from "../lib/format.js";
import { debounce } from "../lib/timing.js";
import { withPointers } from "./errors.js";

const PAUSE_MILLISECONDS = 350; // between the last keystroke and the dry run

/** The object in a JSON text; `usual` if the text is not JSON or not an object. */
export function parseObject(text, usual) {
  try {
    const value = JSON.parse(text);
    return value !== null && typeof value === "object" ? value : usual;
  } catch {
    return usual;
  }
}

export class DryRunForm {
  #requests = 0;
  #submission = new Submission();
  #summary = h("div", { "aria-live": "polite" });
  #details = h("div"); // outside the live region: too long to be read out after each change
  #errors = h("p", { class: "wrong", role: "alert" });

  /**
   * @param {string} path path of the API that creates the job or comparison
   * @param {object} options
   * @param {string} options.submitTitle title of the submit button
   * @param {() => object} options.value the request's body
   * @param {(errors: object[]) => object[]} options.showErrors shows errors at their fields, returns the others
   * @param {(answer: object) => {summary: any, details: any}} options.plan elements for the answer to a dry run
   * @param {(created: object) => Promise<void>} options.onCreated called with the answer to the submission
   * @param {(values: object) => void} options.keepQuery keeps the form's content in the address
   */
  constructor(path, { submitTitle, value, showErrors, plan, onCreated, keepQuery, signal }) {
    Object.assign(this, { path, value, showErrors, plan, onCreated, keepQuery, signal });
    this.changed = debounce(() => this.check(), PAUSE_MILLISECONDS);
    this.id = uniqueId("form");
    this.button = h("button", { class: "primary", type: "submit", form: this.id }, submitTitle);
  }

  /** The form around `content` and the plan beside it; `onChange` is called for a changed control. */
  element(content, onChange = () => {}) {
    const listeners = {
      onsubmit: (event) => this.#submit(event),
      oninput: () => this.changed(),
      onchange: () => {
        onChange();
        this.changed();
      },
    };
    this.form = h(
      "form",
      { id: this.id, novalidate: true, ...listeners },
      h("div", { class: "page" }, content, this.#errors),
    );
    return h(
      "div",
      { class: "side" },
      this.form,
      h("div", { class: "part beside" }, actions(this.button), this.#summary, this.#details),
    );
  }

  #show(errors) {
    fill(this.#errors, withPointers(this.showErrors(errors)));
  }

  /** Request a dry run, and show its plan or the errors. */
  async check() {
    const request = (this.#requests += 1);
    const body = this.value();
    this.keepQuery({ spec: JSON.stringify(body), from: null });
    try {
      const answer = await post(`${this.path}?dry_run=true`, body, { signal: this.signal });
      if (request !== this.#requests) return;
      this.#show([]);
      const { summary, details } = this.plan(answer);
      fill(this.#summary, summary);
      fill(this.#details, details, folded("Request", code(body)));
    } catch (error) {
      if (error.name === "AbortError" || request !== this.#requests) return;
      this.#show(error.fields ?? []);
      fill(this.#summary, refusal(error));
      fill(this.#details);
    }
  }

  async #submit(event) {
    event.preventDefault();
    this.button.disabled = true;
    try {
      await this.onCreated(await this.#submission.send(this.path, this.value()));
    } catch (error) {
      if (error.name === "AbortError") return;
      this.#show(error.fields ?? []);
      toast(error.fields?.length ? "Some fields are invalid." : error.message, "error");
      this.form.querySelector('[aria-invalid="true"]')?.focus();
    } finally {
      this.button.disabled = false;
    }
  }
}

/** Elements in the place of the plan if the API rejects the request or does not respond. */
function refusal({ status, fields = [], message }) {
  const isInvalid = status === 422;
  const summary = fields.length
    ? `${counted(fields.length, "field")} ${fields.length === 1 ? "is" : "are"} invalid:`
    : message;
  return [
    h("h2", {}, isInvalid ? "Invalid request" : "The request could not be checked"),
    errorText(summary),
    fields.length > 0 &&
      h(
        "ul",
        {},
        fields.map((field) => h("li", {}, h("code", {}, field.pointer), ` ${field.detail}`)),
      ),
  ];
}
