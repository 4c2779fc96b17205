// The mean curves of a comparison with bands over the seeds, and the curves of diverged runs.

import { isFraction, metricValue, words } from "../lib/format.js";
import { isFinalComparison } from "../lib/statuses.js";
import { comparisonStyle, plotlyColor, plotlyDash, plotlySymbol } from "../lib/styles.js";
import { escaped, faded } from "./plotly.js";

const EARLY = 0.2; // share of the training that the y axis may cut off, so that the start does not hide the end
const MARKERS = 6; // per line, approximately
const LOG_RATIO = 10; // largest to smallest loss above which the axis is logarithmic

/** The plot of an answer of `/v1/comparisons/{id}/curves`. */
export function curvesPlot(answer, { metric, along, bands, diverged, finals }) {
  if (!bands.length && !diverged.length) {
    if (finals.length) return { message: "The runs of each optimizer do not overlap." };
    const yet = isFinalComparison(answer) ? "" : " yet";
    return { message: `No run has recorded ${words(metric)}${yet}.` };
  }
  const apart = apartOf(bands, finals);
  const factor = isFraction(metric) ? 100 : 1;
  const isLog = spansDecades(metric, bands);
  const means = bands.map((band) => `${band.label} ${metricValue(band.mean.at(-1), metric)}`);
  return {
    traces: [
      ...bands.flatMap((band) => bandTraces(band, comparisonStyle(answer, band.label), metric, factor)),
      ...diverged.flatMap((run) => divergedTraces(run, comparisonStyle(answer, run.label), factor)),
    ],
    height: 320,
    x: { title: along === "steps" ? "step" : "time since start, s" },
    y: {
      title: `${words(metric)}${isFraction(metric) ? ", %" : ""}`,
      log: isLog,
      range: isLog ? undefined : lateRange(bands, factor),
    },
    description: `Final means: ${means.join(", ")}.`,
    remark: apart.length > 0 && `Not drawn, because their runs do not overlap: ${apart.join(", ")}.`,
  };
}

/** Labels of the optimizers whose finished runs have no common x. */
const apartOf = (bands, finals) =>
  Array.from(new Set(finals.map(({ label }) => label))).filter((label) => !bands.some((band) => band.label === label));

function bandTraces({ label, runs, x, mean, low, high }, style, metric, factor) {
  const color = plotlyColor(style);
  const scaled = (values) => values.map((value) => factor * value);
  const silent = { type: "scatter", hoverinfo: "skip", showlegend: false, legendgroup: label };
  const edge = { ...silent, x, mode: "lines", line: { width: 0 } };
  const band = [
    { ...edge, y: scaled(low) },
    { ...edge, y: scaled(high), fill: "tonexty", fillcolor: faded(color, 0.16) },
  ];
  const every = Math.max(1, Math.floor(x.length / MARKERS));
  const isMarked = (_, i) => i % every === 0;
  return [
    ...(runs > 1 ? band : []),
    {
      type: "scatter",
      mode: "lines",
      name: escaped(label),
      legendgroup: label,
      x,
      y: scaled(mean),
      line: { color, width: 2, dash: plotlyDash(style) },
      hovertemplate: isFraction(metric) ? "%{y:.2f} %" : "%{y:.4~g}",
    },
    {
      ...silent,
      mode: "markers",
      x: x.filter(isMarked),
      y: scaled(mean).filter(isMarked),
      marker: { color, size: 6, symbol: plotlySymbol(style) },
    },
  ];
}

function divergedTraces({ label, x, y }, style, factor) {
  const color = plotlyColor(style);
  const scaled = y.map((value) => factor * value);
  return [
    {
      type: "scatter",
      mode: "lines",
      x,
      y: scaled,
      line: { color: faded(color, 0.6), width: 1 },
      hoverinfo: "skip",
      showlegend: false,
    },
    {
      type: "scatter",
      mode: "markers",
      x: x.slice(-1),
      y: scaled.slice(-1),
      marker: { color, symbol: "x", size: 8 },
      hovertemplate: `${escaped(label)} diverged<extra></extra>`,
      showlegend: false,
    },
  ];
}

function spansDecades(metric, bands) {
  const lows = bands.flatMap((band) => band.low).filter((value) => value > 0);
  if (!metric.endsWith("loss") || !lows.length) return false;
  return Math.max(...bands.flatMap((band) => band.mean)) > LOG_RATIO * Math.min(...lows);
}

/** The range of the bands after the start, as in the reports; undefined without bands. */
function lateRange(bands, factor) {
  if (!bands.length) return undefined;
  const end = Math.max(...bands.map((band) => band.x.at(-1)));
  const late = ({ x }, values) => values.filter((_, i) => x[i] >= Math.min(EARLY * end, x.at(-1)));
  const low = factor * Math.min(...bands.flatMap((band) => late(band, band.low)));
  const high = factor * Math.max(...bands.flatMap((band) => late(band, band.high)));
  const margin = 0.05 * (high - low) || 0.01 * Math.abs(high) || 0.01;
  return [low - margin, high + margin];
}
