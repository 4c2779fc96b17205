// A figure, drawn by Plotly in the page's colors and fonts.

import { h, uniqueId } from "../lib/dom.js";
import { RETRY_MILLISECONDS, cssValue, loadPlotly } from "./plotly.js";

const HEIGHT = 280; // pixels, as in `.plot:empty` of components.css
const NEAR = "100px"; // a figure this close to the window is drawn
const OPTIONS = {
  responsive: true,
  displaylogo: false,
  displayModeBar: false,
  doubleClick: "reset+autosize",
  scrollZoom: false,
};
const dark = matchMedia("(prefers-color-scheme: dark)");

/**
 * A figure that can be redrawn with other data; the zoom is kept while the axes show the same quantities.
 *
 * Away from the window nothing is drawn until the reader scrolls to the figure or prints the page: drawing is what a
 * page with live figures costs most.
 *
 * `draw(plot)` calls `plot()`, which returns `{traces, x, y, height, description, remark, layout}`, or `{message}` if
 * there is nothing to draw; `x` and `y` are `{title, log, tickformat, range, ...}`. The caption says what is not drawn.
 */
export class Chart {
  #plot = null; // drawn last, or to be drawn
  #isStale = false; // to be drawn
  #isNear = false;
  #retry;
  #isRemoved = false;

  constructor(title, { signal, note } = {}) {
    this.title = title;
    this.area = h("div", { class: "plot", role: "img", id: uniqueId("plot"), "aria-label": title });
    this.remark = h("span", {});
    const caption = h("figcaption", {}, note && `${note} `, this.remark);
    this.element = h("figure", { class: "chart" }, h("h3", {}, title), this.area, caption);
    dark.addEventListener("change", () => this.#plot && this.draw(this.#plot), { signal });
    const observer = new IntersectionObserver(
      (entries) => {
        this.#isNear = entries.at(-1).isIntersecting;
        if (this.#isNear) this.#drawStale();
      },
      { rootMargin: NEAR },
    );
    observer.observe(this.area);
    addEventListener("beforeprint", () => this.area.isConnected && this.#drawStale(), { signal });
    signal.addEventListener("abort", () => {
      this.#isRemoved = true;
      observer.disconnect();
      if (window.Plotly && this.area.data) window.Plotly.purge(this.area);
    });
  }

  /** Show what `plot()` returns: now, or when the figure comes near. */
  draw(plot) {
    this.#plot = plot;
    this.#isStale = true;
    if (this.#isNear) this.#drawStale();
    else loadPlotly().catch(() => {}); // printing cannot wait for it
  }

  async #drawStale() {
    if (!this.#isStale) return;
    const plot = this.#plot;
    const isOutdated = () => this.#isRemoved || this.#plot !== plot;
    let plotly;
    try {
      plotly = await loadPlotly();
    } catch (error) {
      if (!isOutdated()) this.#retryLater(error);
      return;
    }
    if (isOutdated() || !this.#isStale) return;
    this.#isStale = false;
    const figure = plot();
    const { message = undrawable(figure) } = figure;
    this.remark.textContent = message ? "" : remarks(figure).join(" ");
    if (message) {
      if (this.area.data) plotly.purge(this.area);
      this.#write(message);
      return;
    }
    if (!this.area.data) this.area.replaceChildren();
    const description = [figure.description, ...remarks(figure)].filter(Boolean).join(" ");
    this.area.setAttribute("aria-label", `${this.title}. ${description}`);
    await plotly.react(this.area, drawable(figure), layoutOf(figure), OPTIONS);
  }

  #retryLater(error) {
    this.#write(`${error.message}; retrying \u2026`);
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => this.#isRemoved || this.draw(this.#plot), RETRY_MILLISECONDS);
  }

  /** Show text instead of the drawing. */
  #write(text) {
    this.area.replaceChildren(h("p", { class: "nothing" }, text));
    this.area.setAttribute("aria-label", `${this.title}: ${text}`);
  }
}

const axisValues = (traces, name) => traces.flatMap((trace) => trace[name] ?? []).filter(Number.isFinite);

/** Why Plotly would draw empty axes; undefined if it would not. */
function undrawable({ traces, x = {}, y = {} }) {
  for (const [name, { log }] of Object.entries({ x, y })) {
    const values = axisValues(traces, name);
    if (!values.length) return "No value is finite.";
    if (log && !values.some((value) => value > 0)) return "A logarithmic axis needs a value above 0.";
  }
}

/** The traces with gaps where a logarithmic axis has no place: Plotly would draw lines down to the edge. */
function drawable({ traces, x = {}, y = {} }) {
  const logs = Object.entries({ x, y }).filter(([, { log }]) => log);
  const cut = (values) => values?.map((value) => (value <= 0 ? null : value));
  return traces.map((trace) => ({ ...trace, ...Object.fromEntries(logs.map(([name]) => [name, cut(trace[name])])) }));
}

/** Sentences on what a figure leaves out. */
function remarks({ traces, x = {}, y = {}, remark }) {
  const isCut = ([name, { log }]) => log && axisValues(traces, name).some((value) => value <= 0);
  const cut = Object.entries({ x, y }).some(isCut);
  return [remark, cut && "Values at or below 0 are not drawn, because the axis is logarithmic."].filter(Boolean);
}

function layoutOf({ traces, x = {}, y = {}, height = HEIGHT, legend = true, layout = {} }) {
  const ink = cssValue("--ink");
  return {
    height,
    margin: { l: 8, r: 10, t: 6, b: 8 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 12.5, color: cssValue("--muted") },
    hovermode: "x unified",
    hoverlabel: { bgcolor: cssValue("--paper"), bordercolor: cssValue("--grid"), font: { color: ink, size: 12 } },
    showlegend: legend && traces.filter((trace) => trace.showlegend !== false && trace.name).length > 1,
    legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom", font: { color: ink } },
    uirevision: "kept",
    xaxis: axis(x, traces, "x"),
    yaxis: axis(y, traces, "y"),
    ...layout,
  };
}

function axis({ title, log = false, ...options }, traces, name) {
  const values = axisValues(traces, name);
  const largest = Math.max(0, ...values.map(Math.abs));
  // For equal values, Plotly would show a range of plus and minus 1.
  const isFlat = name === "y" && !log && largest > 0 && values.every((value) => value === values[0]);
  const flat = isFlat ? { range: [Math.min(0, 2 * values[0]), Math.max(0, 2 * values[0])] } : {};
  return {
    title: { text: title, standoff: 6, font: { size: 12.5 } },
    type: log ? "log" : undefined,
    uirevision: `${title} ${log}`, // resets the zoom if the unit changes
    automargin: true,
    gridcolor: cssValue("--grid"),
    linecolor: cssValue("--muted"),
    zerolinecolor: cssValue("--grid"),
    tickcolor: cssValue("--grid"),
    ticks: "outside",
    ticklen: 3,
    nticks: 7,
    ...flat,
    ...(log ? logTicks(values) : { tickformat: tickFormat(largest) }),
    ...options,
  };
}

function logTicks(values) {
  const positive = values.filter((value) => value > 0);
  const decades = positive.length ? Math.log10(Math.max(...positive) / Math.min(...positive)) : 0;
  return { tickformat: "~g", dtick: decades > 1.5 ? 1 : "D2" };
}

function tickFormat(largest) {
  if (largest >= 1e4) return "~s";
  return largest > 0 && largest < 1e-4 ? "~e" : ".5~g";
}
