// Formats numbers, durations, sizes, times and names as text, in English for all browsers.

const LANGUAGE = "en-GB";
const MINUS = "\u2212";
const NO_VALUE = "\u2013";
const MILLISECONDS = 1000;
const MINUTE = 60; // seconds
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const BYTE_UNITS = ["B", "KiB", "MiB", "GiB", "TiB"]; // binary units, which Intl does not have

const formats = new Map(); // cached, because building a formatter is slow and a list has thousands of numbers

function formatter(options) {
  const key = JSON.stringify(options);
  if (!formats.has(key)) formats.set(key, new Intl.NumberFormat(LANGUAGE, { signDisplay: "negative", ...options }));
  return formats.get(key);
}

const format = (value, options) => formatter(options).format(value).replace("-", MINUS);
const isMissing = (value) => value === null || value === undefined || Number.isNaN(value);

/** A number with a fixed count of decimals. */
export const fixed = (value, digits) => format(value, { minimumFractionDigits: digits, maximumFractionDigits: digits });

/** A whole number with separators between thousands. */
export const integer = (value) => format(Math.trunc(value), { maximumFractionDigits: 0 });

/** A number rounded to significant digits, with an exponent where it is very large or small; integers below 1e7 are exact. */
export function number(value, digits = 4) {
  if (isMissing(value)) return NO_VALUE;
  if (!Number.isFinite(value)) return value > 0 ? "\u221e" : `${MINUS}\u221e`;
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e7) return integer(value);
  const isPlain = size >= 1e-4 && size < 1e6;
  const text = format(value, { maximumSignificantDigits: digits, notation: isPlain ? "standard" : "scientific" });
  return text.replace("E", "e").replace("e-", `e${MINUS}`);
}

/** Whether a metric is a fraction, which is shown in percent. */
export const isFraction = (metric) => metric.endsWith("accuracy");

/** A metric's value with its unit; `digits` are the decimals of a percentage. */
export function metricValue(value, metric, digits = 2) {
  if (isMissing(value)) return NO_VALUE;
  return isFraction(metric) ? `${fixed(100 * value, digits)} %` : number(value);
}

/** A standard deviation of a metric: in percentage points where the metric is a fraction. */
export function deviation(value, metric) {
  if (isMissing(value)) return NO_VALUE;
  return isFraction(metric) ? fixed(100 * value, 2) : number(value, 3);
}

/** A difference of two values of a metric with its sign: in percentage points where the metric is a fraction. */
export function difference(value, metric, digits = 2) {
  if (isMissing(value)) return NO_VALUE;
  if (!isFraction(metric)) return `${value > 0 ? "+" : ""}${number(value, 3)}`;
  return format(100 * value, {
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
    signDisplay: "exceptZero",
  });
}

/** `[low, high]` of a metric's values, or of its differences with `show` set to `difference`. */
export function interval(ends, metric, show = metricValue) {
  if (!ends) return NO_VALUE;
  return `${show(ends[0], metric).replace(" %", "")} to ${show(ends[1], metric)}`;
}

/** A p value, as in reports: 0.014, 0.35, < 0.001. */
export function pValue(value) {
  if (isMissing(value)) return NO_VALUE;
  return value < 0.001 ? `< ${fixed(0.001, 3)}` : fixed(value, value < 0.0995 ? 3 : 2);
}

/** A share between 0 and 1 as a whole percentage, rounded down so that 100 % means done. */
export const percent = (share) => `${integer(Math.floor(100 * share))} %`;

/** Seconds as 0.4 s, 12 s, 3 min 5 s, 2 h 10 min or 3 d 4 h. */
export function duration(seconds) {
  if (isMissing(seconds)) return NO_VALUE;
  if (seconds < 10) return `${fixed(seconds, 1)} s`;
  const whole = Math.round(seconds);
  if (whole < MINUTE) return `${whole} s`;
  if (whole < HOUR) return inUnits(whole, [MINUTE, "min"], [1, "s"]);
  const minutes = MINUTE * Math.round(whole / MINUTE);
  if (minutes < DAY) return inUnits(minutes, [HOUR, "h"], [MINUTE, "min"]);
  return inUnits(HOUR * Math.round(minutes / HOUR), [DAY, "d"], [HOUR, "h"]);
}

function inUnits(seconds, [large, largeUnit], [small, smallUnit]) {
  const rest = (seconds % large) / small;
  return `${integer(seconds / large)} ${largeUnit}${rest ? ` ${integer(rest)} ${smallUnit}` : ""}`;
}

/** Bytes in binary units. */
export function bytes(value) {
  if (isMissing(value)) return NO_VALUE;
  const last = BYTE_UNITS.length - 1;
  const unit = Math.min(last, value < 1 ? 0 : Math.floor(Math.log2(value) / 10));
  const size = value / 1024 ** unit;
  return `${unit === 0 ? integer(size) : fixed(size, size < 10 ? 1 : 0)} ${BYTE_UNITS[unit]}`;
}

const RELATIVE = new Intl.RelativeTimeFormat(LANGUAGE, { style: "short" });

/** The time since a timestamp, in one unit: 5 min ago. */
export function ago(time, now = Date.now()) {
  if (!time) return NO_VALUE;
  const seconds = Math.max(0, (now - Date.parse(time)) / MILLISECONDS);
  if (seconds < 5) return "just now";
  const [size, unit] = [
    [DAY, "day"],
    [HOUR, "hour"],
    [MINUTE, "minute"],
    [1, "second"],
  ].find(([length]) => seconds >= length);
  return RELATIVE.format(-Math.floor(seconds / size), unit);
}

const TIMESTAMP = new Intl.DateTimeFormat(LANGUAGE, {
  year: "numeric",
  month: "short",
  day: "numeric",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  timeZoneName: "short",
});

/** A timestamp in the reader's time zone, which is named, to the second. */
export const timestamp = (time) => (time ? TIMESTAMP.format(new Date(time)) : NO_VALUE);

/** The end of an id, which distinguishes jobs; ids begin with a time. */
export const shortId = (id) => id.slice(-8);

/** A field's or metric's name as words: `val_accuracy` is `validation accuracy`. */
export const words = (name) =>
  name
    .replace(/^val_/, "validation ")
    .replace(/^grad_/, "gradient ")
    .replace(/^lr$/, "learning rate")
    .replaceAll("_", " ");

/** Why a job ended, as in verdicts: `timed out`, `training process lost`. */
export const reasonWords = (reason) =>
  reason === "child_lost" ? "training process lost" : reason.replaceAll("_", " ");

const capitalized = (text) => text[0].toUpperCase() + text.slice(1);

/** The same with a capital letter, as a title. */
export const title = (name) => capitalized(words(name));

/** Whether a plan has looks at numbers of seeds that were fixed in advance; only these have nominal p values. */
export const hasPlannedLooks = ({ nominal_p: nominal }) => nominal.length > 0;

/** When a plan tests, in words. */
export function looksText(plan) {
  if (plan.looks.length === 1) return "one test, at the end";
  return hasPlannedLooks(plan) ? `tests after ${plan.looks.join(", ")} seeds` : "a test after each seed";
}

/** A count with its noun: `1 job`, `3 jobs`. */
export const counted = (count, noun, plural = `${noun}s`) => `${integer(count)} ${count === 1 ? noun : plural}`;
