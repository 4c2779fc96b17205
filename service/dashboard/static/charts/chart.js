// Plotly, loaded when the first figure is drawn, in the page's own colours and fonts.

import { h, uniqueId } from "../lib/dom.js";

const AGAIN = 3000; // milliseconds until a library that did not come is asked for again

let loading = null;

/** The library, from the server's own Python wheel; where it does not come, it is asked for anew a little later. */
function plotly() {
  loading ??= new Promise((resolve, reject) => {
    const script = h("script", { src: "/dashboard/plotly.js" });
    const end = () => {
      if (window.Plotly) return resolve(window.Plotly);
      script.remove();
      setTimeout(() => (loading = null), AGAIN);
      reject(new Error("The drawing library could not be loaded"));
    };
    script.addEventListener("load", end);
    script.addEventListener("error", end);
    document.head.append(script);
  });
  return loading;
}

/** The library sets `style` as an attribute in some places, which the page's policy forbids; as a property it may. */
function allowStyles() {
  const plain = Element.prototype.setAttribute;
  Element.prototype.setAttribute = function setAttribute(name, value) {
    if (name === "style") this.style.cssText = value;
    else plain.call(this, name, value);
  };
}
allowStyles();

/** The library reads some HTML in texts; what somebody has called an optimizer is no HTML. */
export const plain = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** A colour with so much of it let through. */
export function faded(colour, share) {
  const found = /^#(..)(..)(..)$/.exec(colour);
  return found
    ? `rgba(${found
        .slice(1)
        .map((part) => parseInt(part, 16))
        .join(",")},${share})`
    : colour;
}

const dark = matchMedia("(prefers-color-scheme: dark)");

/**
 * A figure that can be drawn again with other data, keeping the reader's zoom where the axes still mean the same.
 *
 * `draw(figure)` gives `{traces, x, y, height, description}`; `x` and `y` are `{title, log, tickformat, range, ...}`.
 */
export class Chart {
  constructor(title, { signal, note } = {}) {
    this.plot = h("div", { class: "plot", role: "img", id: uniqueId("plot") });
    this.caption = h("figcaption", {}, note);
    this.element = h("figure", { class: "chart" }, h("h3", {}, title), this.plot, this.caption);
    this.title = title;
    this.last = null;
    this.isGone = false;
    dark.addEventListener("change", () => this.last && this.draw(this.last), { signal });
    signal?.addEventListener("abort", () => {
      this.isGone = true;
      if (window.Plotly && this.plot.data) window.Plotly.purge(this.plot);
    });
  }

  /** Draw, or say `why` nothing can be drawn; without the library say so and try again until it is there. */
  async draw(make) {
    this.last = make;
    let library;
    try {
      library = await plotly();
    } catch (error) {
      if (this.isGone || this.last !== make) return;
      this.say(`${error.message}; trying again \u2026`);
      clearTimeout(this.again);
      this.again = setTimeout(() => this.isGone || this.draw(this.last), AGAIN);
      return;
    }
    if (this.isGone || this.last !== make) return;
    const {
      traces,
      x = {},
      y = {},
      height = 280,
      description = "",
      why,
      shapes = [],
      legend = true,
      layout = {},
    } = make();
    if (why) {
      if (this.plot.data) library.purge(this.plot);
      this.say(why);
      return;
    }
    if (!this.plot.data) this.plot.replaceChildren();
    this.plot.setAttribute("aria-label", `${this.title}. ${description}`);
    await library.react(
      this.plot,
      traces,
      {
        height,
        margin: { l: 8, r: 10, t: 6, b: 8 },
        paper_bgcolor: "rgba(0,0,0,0)",
        plot_bgcolor: "rgba(0,0,0,0)",
        font: { family: getComputedStyle(document.body).fontFamily, size: 12.5, color: css("--muted") },
        hovermode: "x unified",
        hoverlabel: { bgcolor: css("--paper"), bordercolor: css("--grid"), font: { color: css("--ink"), size: 12 } },
        showlegend: legend && traces.filter((trace) => trace.showlegend !== false && trace.name).length > 1,
        legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom", font: { color: css("--ink") } },
        uirevision: "kept",
        shapes,
        xaxis: axis(x, traces, "x"),
        yaxis: axis(y, traces, "y"),
        ...layout,
      },
      { responsive: true, displaylogo: false, displayModeBar: false, doubleClick: "reset+autosize", scrollZoom: false },
    );
  }

  /** Words in the place of the drawing. */
  say(text) {
    this.plot.replaceChildren(h("p", { class: "nothing" }, text));
    this.plot.setAttribute("aria-label", `${this.title}: ${text}`);
  }
}

function axis({ title, log = false, ...more }, traces, which) {
  const values = traces.flatMap((trace) => trace[which] ?? []).filter(Number.isFinite);
  const most = Math.max(0, ...values.map(Math.abs));
  const isFlat = which === "y" && !log && most > 0 && values.every((value) => value === values[0]); // else plotly shows one more and one less
  const positive = values.filter((value) => value > 0);
  const decades = log && positive.length ? Math.log10(Math.max(...positive) / Math.min(...positive)) : 0;
  return {
    title: { text: title, standoff: 6, font: { size: 12.5 } },
    type: log ? "log" : undefined,
    uirevision: `${title} ${log}`, // a zoom is of no use in other units
    automargin: true,
    gridcolor: css("--grid"),
    linecolor: css("--muted"),
    zerolinecolor: css("--grid"),
    tickcolor: css("--grid"),
    ticks: "outside",
    ticklen: 3,
    nticks: 7,
    ...(isFlat ? { range: [Math.min(0, 2 * values[0]), Math.max(0, 2 * values[0])] } : {}),
    ...(log
      ? { tickformat: "~g", dtick: decades > 1.5 ? 1 : "D2" }
      : { tickformat: most >= 1e4 ? "~s" : most > 0 && most < 1e-4 ? "~e" : ".5~g" }),
    ...more,
  };
}

/** An exponential moving average with the bias of its start taken out, as trackers smooth; gaps (null) stay. */
export function smoothed(values, weight) {
  if (!weight) return values;
  let mean = null;
  let mass = 0;
  return values.map((value) => {
    if (value === null || !Number.isFinite(value)) return value;
    mass = mass * weight + (1 - weight);
    mean = mean === null ? value : mean + ((1 - weight) / mass) * (value - mean); // exact where a curve is constant
    return mean;
  });
}
