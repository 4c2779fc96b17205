// The plots of a job: which curves share a figure, and how Plotly draws them.

import { isFraction, title, words } from "../lib/format.js";
import { plotlyDash, plotlySymbol } from "../lib/styles.js";
import { smoothed, thinned } from "./curves.js";
import { faded } from "./plotly.js";

const GROUPS = [
  { title: "Loss", names: ["train_loss", "val_loss", "test_loss"], y: "loss" },
  { title: "Accuracy", names: ["train_accuracy", "val_accuracy", "test_accuracy"], y: "accuracy", isFraction: true },
  { title: "Learning rate", names: ["lr"], y: "learning rate" },
  { title: "Gradient and update", names: ["grad_norm", "update_norm"], y: "L2 norm", isLog: true },
  { title: "Condensation", names: ["weight_correlation"], y: "mean correlation of neurons" },
  { title: "Speed", names: ["samples_per_second"], y: "samples per second" },
];

/** Title and y axis of the diagnostics; docs/ko.md defines them. */
const DIAGNOSTICS = {
  weight_correlation: ["Condensation by layer", "mean correlation of neurons"],
  effective_rank: ["Effective rank of the weights", "rank"],
  lambda_max: ["Largest eigenvalue of the collision matrix", "largest eigenvalue"],
  gamma_lambda_max: ["Gamma times the largest eigenvalue", "gamma \u00d7 largest eigenvalue"],
  temperature: ["Gradient temperature", "temperature"],
  velocity_energy: ["Velocity energy", "energy"],
  velocity_entropy: ["Velocity entropy", "entropy, nats"],
  collision_share: ["Share of colliding pairs", "share"],
};
const HIDDEN = ["diagnostics_seconds"];
const OPACITIES = [1, 0.55, 0.35, 0.75, 0.45]; // of the curves of a figure with more than three
const FEW_POINTS = 30; // below, points have markers
const MIN_SMOOTHED = 4; // points

/** The figures for these metrics: fixed groups first, then one figure per diagnostic with its layers. */
export function plotGroups(names) {
  const groups = GROUPS.map((group) => ({
    ...group,
    names: group.names.filter((name) => names.includes(name)),
  })).filter((group) => group.names.length);
  const grouped = groups.flatMap((group) => group.names);
  const layers = new Map();
  for (const name of names.filter((metric) => !grouped.includes(metric) && !HIDDEN.includes(metric)).sort()) {
    const [base] = name.split("/");
    layers.set(base, [...(layers.get(base) ?? []), name]);
  }
  return [...groups, ...Array.from(layers, ([base, members]) => diagnosticGroup(base, members))];
}

function diagnosticGroup(base, names) {
  const [heading, y] = DIAGNOSTICS[base] ?? [title(base), words(base)];
  const isLayered = names.some((name) => name.includes("/"));
  return { title: heading, names, y, isFraction: isFraction(base), isLayered };
}

/** Plotly's traces of a group: validation in full color, training paler, the test score as one marker. */
export const jobTraces = (group, curves, options) =>
  group.names.flatMap((name, position) => curveTraces(group, position, curves.byName.get(name), options));

function curveTraces(group, position, curve, { style, color, smoothing, by }) {
  const name = group.names[position];
  const factor = group.isFraction ? 100 : 1;
  const raw = {
    x: by === "time" ? curve.seconds : curve.steps,
    y: curve.values.map((value) => (value === null ? null : factor * value)),
  };
  const shown = thinned(raw);
  const trace = {
    name: name.includes("/") ? name.split("/").slice(1).join("/") : words(name),
    type: "scatter",
    connectgaps: false,
    hovertemplate: group.isFraction ? "%{y:.2f} %" : "%{y:.4~g}",
  };
  if (isTest(name) || shown.x.length === 1) {
    const symbol = isTest(name) ? "star" : plotlySymbol(style);
    return [{ ...trace, ...shown, mode: "markers", marker: { color, size: 9, symbol } }];
  }
  const line = lineOf(group, position, { style, color });
  if (!smoothing || shown.x.length < MIN_SMOOTHED) {
    const mode = shown.x.length < FEW_POINTS ? "lines+markers" : "lines";
    return [{ ...trace, ...shown, mode, line, marker: { color: line.color, size: 5, symbol: plotlySymbol(style) } }];
  }
  const pale = { ...line, color: faded(color, 0.18), width: 1 };
  const smooth = thinned({ x: raw.x, y: smoothed(raw.y, smoothing) });
  return [
    { ...trace, ...shown, mode: "lines", line: pale, showlegend: false, hoverinfo: "skip", hovertemplate: undefined },
    { ...trace, ...smooth, mode: "lines", line },
  ];
}

const isTest = (name) => name.startsWith("test_");

function lineOf(group, position, { style, color }) {
  const name = group.names[position];
  const isTraining = name.startsWith("train_") && group.names.length > 1;
  return {
    color: faded(color, opacityOf(group, position, isTraining)),
    width: isTraining ? 1.3 : 1.9,
    dash: isTraining ? "solid" : plotlyDash(group.isLayered ? { dash: position } : style),
  };
}

function opacityOf({ names }, position, isTraining) {
  if (isTraining) return 0.5;
  if (names.length > 3) return OPACITIES[position % OPACITIES.length];
  return position && !names[position].startsWith("val_") ? 0.55 : 1;
}
