// Optimizers in text: a marker in the optimizer's color beside its label.

import { h, svg } from "../lib/dom.js";
import { optimizerName } from "../lib/format.js";
import { markerPath, styleOf } from "../lib/styles.js";

/** A label with the marker of a plot style. */
export const optimizerLabel = (label, style) => h("span", { class: "named" }, marker(style), h("span", {}, label));

const marker = (style) =>
  svg(
    "svg",
    { class: `swatch c${style.colour}`, viewBox: "-6 -6 12 12", "aria-hidden": "true" },
    svg("path", { d: markerPath(style) }),
  );

/** The optimizer of a job's spec. */
export const specOptimizer = (spec) => optimizerLabel(optimizerName(spec.optimizer), styleOf(spec.optimizer.name));
