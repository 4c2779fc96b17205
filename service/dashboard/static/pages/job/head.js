// The head of a job's page: optimizer, task, status, and the buttons to cancel, retry and vary the job.

import { actionButton } from "../../components/buttons.js";
import { actions, linkButton, spacer } from "../../components/layout.js";
import { jobOptimizer } from "../../components/optimizer_label.js";
import { jobStatus, liveIndicator } from "../../components/status.js";
import { toast } from "../../components/toast.js";
import { Editor, remarks } from "../../forms/editor.js";
import { post } from "../../lib/api.js";
import { fill, h } from "../../lib/dom.js";
import { ago, shortId } from "../../lib/format.js";
import { isFinalJob } from "../../lib/statuses.js";

const MAX_MESSAGE = 300; // characters; longer messages are cut to their last line
const RETRYABLE = ["failed", "cancelled"];

export class JobHead {
  /** `onChange` gets the job after the user cancelled or edited it. */
  constructor(id, { user, go, onChange }) {
    const live = liveIndicator();
    Object.assign(this, { id, user, live: live.element, onState: live.onState });
    this.element = h("div", { class: "head" });
    // Each button is made once, because one that waits for confirmation must survive redraws.
    this.cancelButton = actionButton("Cancel", () => this.#cancel(onChange), {
      kind: "danger",
      confirm: "Click again to cancel",
    });
    this.retryButton = actionButton("Retry", () => this.#retry(go));
    this.editor = new Editor(`/v1/jobs/${id}`, onChange);
  }

  async #cancel(onChange) {
    const job = await post(`/v1/jobs/${this.id}/cancel`);
    toast(
      job.status === "cancelled" ? "Job cancelled." : "Cancellation requested: the job stops after its current step.",
    );
    onChange(job);
  }

  async #retry(go) {
    const job = await post(`/v1/jobs/${this.id}/retry`);
    await go(`/jobs/${job.id}`);
  }

  draw(job) {
    const { spec } = job;
    const mayChange = this.user.is_admin || this.user.user === job.user;
    this.live.hidden = isFinalJob(job);
    fill(
      this.element,
      h("h1", {}, job.name && `${job.name}: `, jobOptimizer(job), ` on ${spec.dataset.name}, ${spec.model.name}`),
      jobStatus(job),
      this.live,
      spacer(),
      actions(
        mayChange && !isFinalJob(job) && this.cancelButton,
        mayChange && RETRYABLE.includes(job.status) && this.retryButton,
        mayChange && this.editor.buttons(job, isFinalJob(job)),
        linkButton("Submit a variation", `/jobs/new?from=${this.id}`),
      ),
      h(
        "p",
        { class: "sub" },
        `seed ${spec.seed} \u00b7 submitted by ${job.user} ${ago(job.created_at)}`,
        job.retry_of && [" \u00b7 retry of ", h("a", { href: `/jobs/${job.retry_of}` }, shortId(job.retry_of))],
      ),
      remarks(job),
      job.message && messageView(job),
    );
  }
}

function messageView({ status, message }) {
  const text = message.length > MAX_MESSAGE ? message.trim().split("\n").at(-1) : message;
  return h("p", { class: status === "failed" ? "sub wrong" : "sub" }, text);
}
