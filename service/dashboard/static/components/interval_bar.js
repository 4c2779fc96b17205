// A mean and its interval on a scale that the rows of a table share.

import { svg } from "../lib/dom.js";

const WIDTH = 130;
const HEIGHT = 16;

/** The range of all these intervals and values with some room; null where there is nothing. */
export function scaleOf(rows, zero = false) {
  const all = rows
    .flatMap(({ mean, interval }) => [mean, ...(interval ?? [])])
    .filter((value) => typeof value === "number");
  if (zero) all.push(0);
  if (!all.length) return null;
  const low = Math.min(...all);
  const high = Math.max(...all);
  const room = 0.06 * (high - low) || 0.05 * Math.abs(high) || 0.05;
  return { low: low - room, high: high + room, zero };
}

/** The drawing; `text` says the same in words. */
export function intervalBar({ mean, interval }, scale, look, text) {
  if (mean === null || mean === undefined || !scale) return "";
  const at = (value) => (WIDTH * (value - scale.low)) / (scale.high - scale.low);
  const middle = HEIGHT / 2;
  return svg(
    "svg",
    {
      class: `interval c${look?.colour ?? 6}`,
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      width: WIDTH,
      height: HEIGHT,
      role: "img",
      "aria-label": text,
    },
    scale.zero && svg("line", { class: "zero", x1: at(0), x2: at(0), y1: 0, y2: HEIGHT }),
    interval && svg("line", { class: "range", x1: at(interval[0]), x2: at(interval[1]), y1: middle, y2: middle }),
    svg("circle", { cx: at(mean), cy: middle, r: 3.6 }),
  );
}
