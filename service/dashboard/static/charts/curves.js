// The curves of a job, collected from its stream, and their thinning and smoothing for drawing.

const MAX_POINTS = 1500; // per line, more than a figure has pixels

/** All points of a job, by metric. */
export class Curves {
  byName = new Map();

  /** Add the points of a `metric` event. */
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

  /** Drop the points from a step on, at which the run resumes. */
  rewind(step) {
    for (const [name, curve] of this.byName) {
      const first = curve.steps.findIndex((recorded) => recorded >= step);
      if (first === 0) this.byName.delete(name);
      else if (first > 0) for (const part of Object.values(curve)) part.length = first;
    }
  }

  get names() {
    return Array.from(this.byName.keys());
  }

  /** The latest value of a metric; null without values. */
  last(name) {
    return this.byName.get(name)?.values.at(-1) ?? null;
  }
}

/** At most `count` points: the first, the last, and of each bucket the lowest and the highest, or a gap. */
export function thinned({ x, y }, count = MAX_POINTS) {
  if (x.length <= count) return { x, y };
  const kept = [0];
  const buckets = Math.floor((count - 2) / 2);
  const edge = (bucket) => 1 + Math.floor((bucket * (x.length - 2)) / buckets);
  for (let bucket = 0; bucket < buckets; bucket += 1) kept.push(...extremes(y, edge(bucket), edge(bucket + 1)));
  kept.push(x.length - 1);
  return { x: kept.map((i) => x[i]), y: kept.map((i) => y[i]) };
}

/** The indices of the lowest and highest value of a bucket, in order; the index of a gap (null) replaces the lowest. */
function extremes(values, start, end) {
  let low = start;
  let high = start;
  for (let i = start; i < end; i += 1) {
    if (values[i] === null) {
      low = i;
      break;
    }
    if (values[i] < values[low]) low = i;
    if (values[i] > values[high]) high = i;
  }
  return low === high ? [low] : [Math.min(low, high), Math.max(low, high)];
}

/** A bias-corrected exponential moving average with a weight from 0 to 1 for the past; gaps (null) stay. */
export function smoothed(values, weight) {
  if (!weight) return values;
  let mean = null;
  let mass = 0;
  return values.map((value) => {
    if (value === null || !Number.isFinite(value)) return value;
    mass = mass * weight + (1 - weight);
    mean = mean === null ? value : mean + ((1 - weight) / mass) * (value - mean); // exact for a constant curve
    return mean;
  });
}
