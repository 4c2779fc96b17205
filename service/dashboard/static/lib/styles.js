// Plot styles: the color, dash and marker of each optimizer, the same on every page and in every report.

import { get } from "./api.js";

const COLORS = 7; // --s0 to --s6 in base.css, with values for both color schemes
const DASHES = ["solid", "6px,2px", "2px,2px", "7px,2px,2px,2px"];
const MARKERS = [
  { symbol: "circle", path: "M4 0A4 4 0 1 1-4 0A4 4 0 1 1 4 0Z" },
  { symbol: "square", path: "M-3.7-3.7H3.7V3.7H-3.7Z" },
  { symbol: "triangle-up", path: "M0-4.4L4.2 3.6H-4.2Z" },
  { symbol: "diamond", path: "M0-4.8L4.4 0L0 4.8L-4.4 0Z" },
  { symbol: "triangle-down", path: "M0 4.4L4.2-3.6H-4.2Z" },
  { symbol: "cross", path: "M-1.6-4.4H1.6V-1.6H4.4V1.6H1.6V4.4H-1.6V1.6H-4.4V-1.6H-1.6Z" },
  { symbol: "x", path: "M-4.2-2L-2-4.2L0-2.2L2-4.2L4.2-2L2.2 0L4.2 2L2 4.2L0 2.2L-2 4.2L-4.2 2L-2.2 0Z" },
  { symbol: "hexagon", path: "M0-4.6L4-2.3V2.3L0 4.6L-4 2.3V-2.3Z" },
  { symbol: "triangle-left", path: "M-4.4 0L3.6-4.2V4.2Z" },
];

/** The style of an optimizer that is not in the catalog. */
export const DEFAULT_STYLE = { colour: COLORS - 1, dash: 0, marker: 0 };

let colors = null;

/** Take the optimizers' colors from the catalog; pages that call `styleOf` call this or await `loadStyles`. */
export function setStyles(catalog) {
  colors = new Map(catalog.optimizers.map((entry) => [entry.name, entry.colour]));
}

/** Fetch the optimizers' colors once. */
export async function loadStyles(signal) {
  if (colors === null) setStyles(await get("/v1/catalog", {}, signal));
}

/** The style of an optimizer by its name in the catalog. */
export const styleOf = (name) => ({ ...DEFAULT_STYLE, colour: colors?.get(name) ?? DEFAULT_STYLE.colour });

const markerOf = (style) => MARKERS[style.marker % MARKERS.length];

/** The marker's outline as an SVG path, about 8 units wide around the origin. */
export const markerPath = (style) => markerOf(style).path;

/** The marker's name in Plotly. */
export const plotlySymbol = (style) => markerOf(style).symbol;

/** The dash pattern in Plotly's notation. */
export const plotlyDash = (style) => DASHES[style.dash % DASHES.length];

/** The color in the current color scheme. */
export const plotlyColor = (style) =>
  getComputedStyle(document.documentElement)
    .getPropertyValue(`--s${style.colour % COLORS}`)
    .trim();

/** The style of an optimizer in a comparison's answer, by its label. */
export const comparisonStyle = (answer, label) => answer.looks[label] ?? DEFAULT_STYLE;
