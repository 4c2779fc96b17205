// A mean and its interval as a small drawing, on a common scale for the rows of a table.

import { svg } from "../lib/dom.js";

const WIDTH = 130;
const HEIGHT = 16;

/** The range of all means and intervals with a margin; null without values. `hasZero` includes and marks zero. */
export function scaleOf(rows, hasZero = false) {
  const values = rows
    .flatMap(({ mean, interval }) => [mean, ...(interval ?? [])])
    .filter((value) => typeof value === "number");
  if (hasZero) values.push(0);
  if (!values.length) return null;
  const low = Math.min(...values);
  const high = Math.max(...values);
  const margin = 0.06 * (high - low) || 0.05 * Math.abs(high) || 0.05;
  return { low: low - margin, high: high + margin, hasZero };
}

/** The drawing in the color of a plot style; `text` describes it for screen readers. */
export function intervalBar({ mean, interval }, scale, style, text) {
  if (mean === null || mean === undefined || !scale) return "";
  const x = (value) => (WIDTH * (value - scale.low)) / (scale.high - scale.low);
  const middle = HEIGHT / 2;
  return svg(
    "svg",
    {
      class: `interval c${style.colour}`,
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      width: WIDTH,
      height: HEIGHT,
      role: "img",
      "aria-label": text,
    },
    scale.hasZero && svg("line", { class: "zero", x1: x(0), x2: x(0), y1: 0, y2: HEIGHT }),
    interval && svg("line", { class: "range", x1: x(interval[0]), x2: x(interval[1]), y1: middle, y2: middle }),
    svg("circle", { cx: x(mean), cy: middle, r: 3.6 }),
  );
}
