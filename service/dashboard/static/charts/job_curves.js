// The curves of a run: kept as they come, thinned out and grouped to be drawn.

import { faded, smoothed } from "./chart.js";
import { isShare, words } from "../lib/format.js";
import { dash, symbol } from "../lib/styles.js";

const MOST_DRAWN = 1500; // points of a line: more than a figure has pixels

/** All points of a job so far, by metric. */
export class Curves {
  constructor() {
    this.byName = new Map();
  }

  /** Points as a `metric` event has them. */
  add(points) {
    for (const [name, { steps, values, wall_seconds: seconds }] of Object.entries(points)) {
      const curve = this.byName.get(name) ?? { steps: [], values: [], seconds: [] };
      for (let i = 0; i < steps.length; i += 1) {
        curve.steps.push(steps[i]);
        curve.values.push(values[i]);
        curve.seconds.push(seconds[i]);
      }
      this.byName.set(name, curve);
    }
  }

  /** Forget what comes again: the run goes on from an earlier step. */
  rewind(step) {
    for (const [name, curve] of this.byName) {
      const kept = curve.steps.findIndex((one) => one >= step);
      if (kept === 0) this.byName.delete(name);
      else if (kept > 0) for (const part of Object.values(curve)) part.length = kept;
    }
  }

  get isEmpty() {
    return this.byName.size === 0;
  }

  last(name) {
    return this.byName.get(name)?.values.at(-1) ?? null;
  }
}

/** At most so many points: the first, the last, and of each stretch the smallest, the largest and what is no number. */
function thinned({ x, y }, most = MOST_DRAWN) {
  if (x.length <= most) return { x, y };
  const keep = [0];
  const buckets = Math.floor((most - 2) / 2);
  for (let bucket = 0; bucket < buckets; bucket += 1) {
    const start = 1 + Math.floor((bucket * (x.length - 2)) / buckets);
    const end = 1 + Math.floor(((bucket + 1) * (x.length - 2)) / buckets);
    let low = start;
    let high = start;
    for (let i = start; i < end; i += 1) {
      if (y[i] === null) {
        low = i;
        break;
      }
      if (y[i] < y[low]) low = i;
      if (y[i] > y[high]) high = i;
    }
    keep.push(...(low === high ? [low] : [Math.min(low, high), Math.max(low, high)]));
  }
  keep.push(x.length - 1);
  return { x: keep.map((i) => x[i]), y: keep.map((i) => y[i]) };
}

const GROUPS = [
  { title: "Loss", names: ["train_loss", "val_loss", "test_loss"], y: "loss" },
  { title: "Accuracy", names: ["train_accuracy", "val_accuracy", "test_accuracy"], y: "accuracy", share: true },
  { title: "Learning rate", names: ["lr"], y: "learning rate" },
  { title: "Gradient and update", names: ["grad_norm", "update_norm"], y: "L2 norm", log: true },
  { title: "Condensation", names: ["weight_correlation"], y: "mean correlation of neurons" },
  { title: "Speed", names: ["samples_per_second"], y: "records per second" },
];

/** What diagnostics are called for people; docs/ko.md says what each is. */
const QUANTITIES = {
  weight_correlation: ["Condensation by layer", "mean correlation of neurons"],
  effective_rank: ["Effective rank of the weights", "rank"],
  lambda_max: ["Largest eigenvalue of the collision matrix", "largest eigenvalue"],
  gamma_lambda_max: ["Largest eigenvalue, times gamma", "gamma \u00d7 largest eigenvalue"],
  temperature: ["Temperature of the gradients", "temperature"],
  velocity_energy: ["Energy of the velocities", "energy"],
  velocity_entropy: ["Entropy of the velocities", "entropy, nats"],
  collision_share: ["Share of pairs that collided", "share"],
};

/** The figures that there is something for, the known ones first; layers of one quantity share a figure. */
export function groups(names) {
  const found = GROUPS.map((group) => ({ ...group, names: group.names.filter((name) => names.includes(name)) })).filter(
    (group) => group.names.length,
  );
  const known = new Set(found.flatMap((group) => group.names));
  const others = new Map();
  for (const name of names.filter((one) => !known.has(one) && one !== "diagnostics_seconds").sort()) {
    const base = name.split("/")[0];
    others.set(base, [...(others.get(base) ?? []), name]);
  }
  for (const [base, members] of others) {
    const [title, y] = QUANTITIES[base] ?? [capital(words(base)), words(base)];
    found.push({
      title,
      names: members,
      y,
      share: isShare(base),
      isLayered: members.some((name) => name.includes("/")),
    });
  }
  return found;
}

const capital = (text) => text[0].toUpperCase() + text.slice(1);

/** What Plotly draws for a group: validation in full colour, training behind it, the test as one marker. */
export function traces(group, curves, { look, colour, smoothing, by }) {
  const shades = [1, 0.55, 0.35, 0.75, 0.45];
  return group.names.flatMap((name, position) => {
    const curve = curves.byName.get(name);
    const factor = group.share ? 100 : 1;
    const raw = {
      x: by === "time" ? curve.seconds : curve.steps,
      y: curve.values.map((value) => (value === null ? null : factor * value)),
    };
    const isTraining = name.startsWith("train_") && group.names.length > 1;
    const isTest = name.startsWith("test_");
    const tint = isTraining
      ? faded(colour, 0.5)
      : group.names.length > 3
        ? faded(colour, shades[position % shades.length])
        : position && !isTest && !name.startsWith("val_")
          ? faded(colour, 0.55)
          : colour;
    const line = {
      color: tint,
      width: isTraining ? 1.3 : 1.9,
      dash: isTraining ? "solid" : dash(group.isLayered ? { dash: position } : look),
    };
    const shown = thinned(raw);
    const main = {
      name: name.includes("/") ? name.split("/").slice(1).join("/") : words(name),
      type: "scatter",
      connectgaps: false,
      hovertemplate: group.share ? "%{y:.2f} %" : "%{y:.4~g}",
    };
    if (isTest || shown.x.length === 1)
      return [
        {
          ...main,
          ...shown,
          mode: "markers",
          marker: { color: colour, size: 9, symbol: isTest ? "star" : symbol(look) },
        },
      ];
    const mode = shown.x.length < 30 ? "lines+markers" : "lines";
    const marks = { color: tint, size: 5, symbol: symbol(look) };
    if (!smoothing || shown.x.length < 4) return [{ ...main, ...shown, mode, line, marker: marks }];
    const soft = thinned({ x: raw.x, y: smoothed(raw.y, smoothing) });
    return [
      {
        ...main,
        ...shown,
        mode: "lines",
        line: { ...line, color: faded(colour, 0.18), width: 1 },
        showlegend: false,
        hoverinfo: "skip",
        hovertemplate: undefined,
      },
      { ...main, ...soft, mode: "lines", line },
    ];
  });
}
