// Numbers, times and names as people read them.

const MINUS = "\u2212";

/** A number rounded to so many significant digits, without an exponent where that is readable; integers below 1e7 are exact. */
export function number(value, digits = 4) {
  if (value === null || value === undefined || Number.isNaN(value)) return "\u2013";
  if (!Number.isFinite(value)) return value > 0 ? "\u221e" : `${MINUS}\u221e`;
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e7) return grouped(value).replace("-", MINUS);
  const rounded = Number(value.toPrecision(digits));
  const text =
    size >= 1e6 || size < 1e-4
      ? rounded
          .toExponential(digits - 1)
          .replace(/\.?0+e/, "e")
          .replace("e+", "e")
      : Number.isInteger(rounded)
        ? grouped(rounded)
        : String(rounded);
  return text.replace(/-/g, MINUS);
}

/** An integer with its thousands apart. */
export function grouped(value) {
  return String(Math.trunc(value)).replace(/\B(?=(\d{3})+(?!\d))/g, ",");
}

/** Whether a metric is a share, which is shown in percent. */
export const isShare = (metric) => metric.endsWith("accuracy");

/** A value of a metric with its unit; `digits` after the point of a percentage. */
export function measured(value, metric, digits = 2) {
  if (value === null || value === undefined) return "\u2013";
  if (isShare(metric)) return `${(100 * value).toFixed(digits).replace("-", MINUS)} %`;
  return number(value);
}

/** A difference of two values of a metric: percentage points where it is a share, always with its sign. */
export function difference(value, metric, digits = 2) {
  if (value === null || value === undefined) return "\u2013";
  const sign = value > 0 ? "+" : "";
  if (!isShare(metric)) return `${sign}${number(value, 3)}`;
  const text = (100 * value).toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : `${sign}${text.replace("-", MINUS)}`;
}

/** `[low, high]` of values or differences, in the given way. */
export function interval(pair, metric, show = measured) {
  if (!pair) return "\u2013";
  return `${show(pair[0], metric).replace(" %", "")} to ${show(pair[1], metric)}`;
}

/** A p value. */
export function pValue(value) {
  if (value === null || value === undefined) return "\u2013";
  return value < 0.001 ? "< 0.001" : value.toFixed(3);
}

/** Seconds as 0.4 s, 12 s, 3 min 5 s, 2 h 10 min, 3 d 4 h. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "\u2013";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min${whole % 60 ? ` ${whole % 60} s` : ""}`;
  const minutes = Math.round(whole / 60);
  if (minutes < 1440) return `${Math.floor(minutes / 60)} h${minutes % 60 ? ` ${minutes % 60} min` : ""}`;
  const hours = Math.round(minutes / 60);
  return `${Math.floor(hours / 24)} d${hours % 24 ? ` ${hours % 24} h` : ""}`;
}

/** Bytes in binary units. */
export function bytes(value) {
  if (value === null || value === undefined) return "\u2013";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let size = value;
  let unit = 0;
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? size : size.toFixed(size < 10 ? 1 : 0)} ${units[unit]}`;
}

/** How long ago a time was, in one unit. */
export function ago(time, now = Date.now()) {
  if (!time) return "\u2013";
  const seconds = Math.max(0, (now - Date.parse(time)) / 1000);
  if (seconds < 5) return "just now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86_400)} d ago`;
}

/** A time in the reader's own zone, to the second. */
export function moment(time) {
  if (!time) return "\u2013";
  const date = new Date(time);
  const two = (value) => String(value).padStart(2, "0");
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

/** The end of an id, which tells jobs apart; their beginnings are times. */
export const shortId = (id) => id.slice(-8);

/** `val_accuracy` as `validation accuracy`. */
export function words(name) {
  return name.replace(/^val_/, "validation ").replace(/^lr$/, "learning rate").replaceAll("_", " ");
}

/** One or many: `3 jobs`. */
export function many(count, word, plural = `${word}s`) {
  return `${grouped(count)} ${count === 1 ? word : plural}`;
}

/** What stands for an optimizer where no label is given: KO with its form and base, others by name. */
export function optimizerName(optimizer) {
  const params = optimizer.params ?? {};
  if (optimizer.name === "ko") {
    const form = params.collision === "soft" && params.bounded ? "bounded" : params.collision;
    return `ko ${form ?? ""} (${params.base ?? "adam"})`.replace("  ", " ");
  }
  if (optimizer.name === "control") return `${params.control} (${params.base ?? "adam"})`;
  return optimizer.name;
}
