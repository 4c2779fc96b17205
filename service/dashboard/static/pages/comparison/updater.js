// Redraw a part of the page only if its data has changed.

import { fill } from "../../lib/dom.js";

/** A function that fills `element` with `view(value)` if the value differs from the last one. */
export function updater(element, view) {
  let last;
  return (value) => {
    const text = JSON.stringify(value);
    if (text !== last) fill(element, view(value));
    last = text;
  };
}
