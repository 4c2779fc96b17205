// How each optimizer is drawn, the same on every page and in every report: colour, dash and marker at once.

import { get } from "./api.js";

/** As in the reports: Okabe and Ito's colours without the yellow; the style sheet has them for both themes. */
const COLOURS = 7;
const DASHES = ["solid", "6px,2px", "2px,2px", "7px,2px,2px,2px"];
const SYMBOLS = [
  "circle",
  "square",
  "triangle-up",
  "diamond",
  "triangle-down",
  "cross",
  "x",
  "hexagon",
  "triangle-left",
];
const SHAPES = [
  "M4 0A4 4 0 1 1-4 0A4 4 0 1 1 4 0Z",
  "M-3.7-3.7H3.7V3.7H-3.7Z",
  "M0-4.4L4.2 3.6H-4.2Z",
  "M0-4.8L4.4 0L0 4.8L-4.4 0Z",
  "M0 4.4L4.2-3.6H-4.2Z",
  "M-1.6-4.4H1.6V-1.6H4.4V1.6H1.6V4.4H-1.6V1.6H-4.4V-1.6H-1.6Z",
  "M-4.2-2L-2-4.2L0-2.2L2-4.2L4.2-2L2.2 0L4.2 2L2 4.2L0 2.2L-2 4.2L-4.2 2L-2.2 0Z",
  "M0-4.6L4-2.3V2.3L0 4.6L-4 2.3V-2.3Z",
  "M-4.4 0L3.6-4.2V4.2Z",
];

let homes = null;

/** Fetch the colours of the optimizers once; pages that show looks wait for it. */
export async function loadLooks(signal) {
  if (homes !== null) return;
  const catalog = await get("/v1/catalog", {}, signal);
  homes = new Map(catalog.optimizers.map((entry) => [entry.name, entry.colour]));
}

/** The look of an optimizer by its name alone. */
export function lookOf(name) {
  return { colour: homes?.get(name) ?? COLOURS - 1, dash: 0, marker: 0 };
}

/** The outline of a marker, about 8 units wide around 0. */
export const marker = (look) => SHAPES[look.marker % SHAPES.length];

/** The same as plotly names it. */
export const symbol = (look) => SYMBOLS[look.marker % SYMBOLS.length];

export const dash = (look) => DASHES[look.dash % DASHES.length];

/** The colour as the style sheet has it for the theme that is shown. */
export function colour(look) {
  return getComputedStyle(document.documentElement)
    .getPropertyValue(`--s${look.colour % COLOURS}`)
    .trim();
}
