// Tags: `KEY:VALUE` pairs separated by commas.

import { h } from "../lib/dom.js";
import { field } from "./field.js";

const pairsIn = (text) =>
  text
    .split(",")
    .map((pair) => pair.trim())
    .filter(Boolean)
    .map((pair) => pair.split(":"));

const namesIn = (pairs) => pairs.map(([name]) => name.trim());

/** The error in a text that is not a valid set of tags; null if it is valid. */
function syntaxError(text) {
  const pairs = pairsIn(text);
  const names = namesIn(pairs);
  const bare = pairs.find((pair) => pair.length === 1);
  if (bare) return `${bare[0]} needs a value, such as ${bare[0]}:a`;
  const repeated = names.find((name, position) => names.indexOf(name) < position);
  return repeated === undefined ? null : `${repeated} is given twice`;
}

function read({ value: text }) {
  const pairs = pairsIn(text);
  if (!pairs.length) return undefined;
  if (syntaxError(text)) return text; // the API rejects it, and the field then shows the syntax error
  const values = pairs.map(([, ...value]) => value.join(":").trim());
  return Object.fromEntries(namesIn(pairs).map((name, position) => [name, values[position]]));
}

const asText = (tags) =>
  Object.entries(tags)
    .map(([name, value]) => `${name}:${value}`)
    .join(", ");

export function tagsField() {
  const control = h("input", { type: "text", autocomplete: "off", placeholder: "study:first, machine:a" });
  const tags = field("tags", control, {
    help: "Labels for finding jobs, as KEY:VALUE.",
    read,
    write: (input, value) => (input.value = asText(value)),
  });
  return { ...tags, setError: (text) => tags.setError(text && (syntaxError(control.value) ?? text)) };
}
