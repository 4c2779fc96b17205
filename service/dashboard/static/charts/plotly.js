// Plotly, loaded with the first figure; the server provides it from a Python wheel.

import { h } from "../lib/dom.js";

/** Milliseconds after which a failed download is retried. */
export const RETRY_MILLISECONDS = 3000;

let loading = null;

/** Load the library once. Rejects if it cannot be loaded; later calls retry. */
export function loadPlotly() {
  loading ??= new Promise((resolve, reject) => {
    const script = h("script", { src: "/dashboard/plotly.js" });
    const end = () => {
      if (window.Plotly) {
        resolve(window.Plotly);
        return;
      }
      script.remove();
      setTimeout(() => (loading = null), RETRY_MILLISECONDS);
      reject(new Error("Plotly could not be loaded"));
    };
    script.addEventListener("load", end);
    script.addEventListener("error", end);
    document.head.append(script);
  });
  return loading;
}

/** Set `style` attributes as properties: Plotly sets attributes, which the content security policy forbids. */
function allowStyleAttributes() {
  const original = Element.prototype.setAttribute;
  Element.prototype.setAttribute = function setAttribute(name, value) {
    if (name === "style") this.style.cssText = value;
    else original.call(this, name, value);
  };
}
allowStyleAttributes();

/** Text escaped for Plotly, which interprets some HTML in labels. */
export const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

/** A `#rrggbb` color with an opacity from 0 to 1. */
export function faded(color, opacity) {
  const match = /^#(..)(..)(..)$/.exec(color);
  if (!match) return color;
  const parts = match.slice(1).map((part) => parseInt(part, 16));
  return `rgba(${parts.join(",")},${opacity})`;
}

/** A color or length of the style sheet in the current color scheme. */
export const cssValue = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
