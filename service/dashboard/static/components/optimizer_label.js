// Optimizers in text: the label after a marker in the optimizer's color.

import { h, svg } from "../lib/dom.js";
import { markerPath, styleOf } from "../lib/styles.js";

/** A label with the marker of a plot style. */
export const optimizerLabel = (label, style) => h("span", { class: "named" }, marker(style), h("span", {}, label));

const marker = (style) =>
  svg(
    "svg",
    { class: `swatch c${style.colour}`, viewBox: "-6 -6 12 12", "aria-hidden": "true" },
    svg("path", { d: markerPath(style) }),
  );

/** The optimizer of a job. */
export const jobOptimizer = (job) => optimizerLabel(job.optimizer_label, styleOf(job.spec.optimizer.name));
