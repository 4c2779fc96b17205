// Status chips, progress bars, and the indicator of a live connection.

import { h } from "../lib/dom.js";
import { reasonWords } from "../lib/format.js";

const SIGNS = {
  queued: "\u25cb",
  running: "\u25d0",
  succeeded: "\u2713",
  failed: "\u2715",
  cancelled: "\u2013",
  up: "\u25cf",
  stopped: "\u25cb",
  lost: "\u2715",
};
const OBVIOUS_REASONS = ["completed", "cancelled"];

/** A status as sign, word and color; `word` is shown instead of its own. */
export const statusChip = (status, title, word = status) =>
  h(
    "span",
    { class: `chip ${status}`, title },
    h("span", { class: "sign", "aria-hidden": "true" }, SIGNS[status] ?? ""),
    word,
  );

/** A job's status, with the reason if it is not obvious. */
export function jobStatus({ status, reason, cancel_requested: isCancelling }) {
  if (isCancelling && status === "running") return statusChip("running", "cancellation requested");
  const why = reason && !OBVIOUS_REASONS.includes(reason) && reasonWords(reason);
  return h("span", { class: "chips" }, statusChip(status), why && h("span", { class: "why" }, why));
}

/** A bar filled to `share`, from 0 to 1; null shows activity of unknown length. */
export function progressBar(share, label) {
  const isKnown = share !== null && share !== undefined;
  return h(
    "span",
    {
      class: isKnown ? "progress" : "progress moving",
      role: "progressbar",
      "aria-label": label,
      "aria-valuemin": "0",
      "aria-valuemax": "100",
      "aria-valuenow": isKnown ? Math.round(100 * share) : null,
    },
    h("span", { class: "done", style: { width: isKnown ? `${100 * Math.min(1, share)}%` : "100%" } }),
  );
}

/** The state of a stream: an element, and `onState` for `follow`. */
export function liveIndicator() {
  const element = h("span", { class: "live" }, "connecting");
  const onState = (isLive) => {
    element.classList.toggle("on", isLive);
    element.textContent = isLive ? "live" : "reconnecting";
  };
  return { element, onState };
}
