// The head of a comparison's page: name, status, reports, cancel.

import { actionButton } from "../../components/buttons.js";
import { actions, spacer } from "../../components/layout.js";
import { liveIndicator, statusChip } from "../../components/status.js";
import { toast } from "../../components/toast.js";
import { Editor, remarks } from "../../forms/editor.js";
import { download, post } from "../../lib/api.js";
import { fill, h } from "../../lib/dom.js";
import { ago } from "../../lib/format.js";
import { isFinalComparison } from "../../lib/statuses.js";

const REPORTS = [
  { title: "Report", format: "html", ending: "html" },
  { title: "CSV", format: "csv", ending: "csv" },
  { title: "LaTeX", format: "latex", ending: "tex" },
  { title: "JSON", format: "json", ending: "json" },
];

/** The name of a comparison's files, without an ending. */
export const fileName = ({ name }) =>
  name
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "-")
    .replace(/^-|-$/g, "") || "comparison";

export class ComparisonHead {
  /** `onChange` is called after the user cancelled or edited the comparison. */
  constructor(id, user, onChange) {
    const live = liveIndicator();
    Object.assign(this, { id, user, live: live.element, onState: live.onState });
    this.element = h("div", { class: "head" });
    // Made once, because a button that waits for confirmation must survive redraws.
    this.cancelButton = actionButton("Cancel", () => this.#cancel(onChange), {
      kind: "danger small",
      confirm: "Click again to cancel",
    });
    this.editor = new Editor(`/v1/comparisons/${id}`, onChange, "small");
  }

  async #cancel(onChange) {
    await post(`/v1/comparisons/${this.id}/cancel`);
    toast("Comparison cancelled. Runs that other comparisons or users need will continue.");
    onChange();
  }

  #reportButton(answer, { title, format, ending }) {
    const path = `/v1/comparisons/${this.id}/report?format=${format}`;
    return actionButton(title, () => download(path, `${fileName(answer)}.${ending}`), { kind: "small" });
  }

  draw(answer) {
    const isFinal = isFinalComparison(answer);
    const mayChange = this.user.is_admin || this.user.user === answer.user;
    const tags = Object.entries(answer.tags).map(([key, value]) => `${key}:${value}`);
    const facts = [`submitted by ${answer.user} ${ago(answer.created_at)}`, ...tags];
    this.live.hidden = isFinal;
    fill(
      this.element,
      h("h1", {}, answer.name),
      statusChip(answer.status),
      this.live,
      spacer(),
      actions(
        !isFinal && mayChange && this.cancelButton,
        mayChange && this.editor.buttons(answer, isFinal),
        REPORTS.map((report) => this.#reportButton(answer, report)),
      ),
      h(
        "p",
        { class: "sub" },
        `${facts.join(" \u00b7 ")} \u00b7 `,
        h("a", { href: `/jobs?comparison=${this.id}` }, "jobs"),
      ),
      remarks(answer),
      answer.message && h("p", { class: "sub wrong" }, answer.message),
    );
  }
}
