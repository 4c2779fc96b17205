// Fields made from the API's JSON Schemas, so that the forms offer exactly what the API accepts.

import { h } from "../lib/dom.js";
import { number } from "../lib/format.js";
import { field, titleOf } from "./field.js";
import { parseNumber, parseNumbers } from "./parse_number.js";

const EMPTY_LIST = "none"; // because an empty field stands for the default
const MAX_LIMIT = 1e6; // larger limits are not shown

/** A schema with its `$ref` resolved. */
export const resolved = (schema, defs) =>
  schema.$ref ? { ...defs[schema.$ref.split("/").at(-1)], ...schema, $ref: undefined } : schema;

/** The schema X of `X or null`, and whether null is allowed. */
function unwrapped(schema, defs) {
  const union = resolved(schema, defs);
  if (!union.anyOf) return { schema: union, isOptional: false };
  const types = union.anyOf.filter((type) => type.type !== "null");
  return {
    schema: { ...union, anyOf: undefined, ...resolved(types[0], defs) },
    isOptional: types.length < union.anyOf.length,
  };
}

/** The field of a property. Its value is undefined if it is left at the default. */
export function schemaField(name, property, defs = {}) {
  const { schema, isOptional } = unwrapped(property, defs);
  const help = helpOf(schema, titleOf(name));
  if (schema.enum) return enumField(name, schema, { default: property.default, help });
  if (schema.type === "boolean") return booleanField(name, { default: property.default, help });
  return typedField(name, schema, { default: property.default ?? undefined, isOptional, help });
}

/** The first paragraph of a schema's description, unless it only repeats the title. */
function helpOf({ description = "" }, title) {
  const [text] = description.split("\n\n");
  return text.replace(/\.$/, "").toLowerCase() === title.toLowerCase() ? "" : text;
}

function enumField(name, schema, { default: usual, help }) {
  const control = h(
    "select",
    {},
    schema.enum.map((value) => h("option", { value }, value)),
  );
  control.value = usual ?? schema.enum[0];
  return field(name, control, { help, read: (input) => (input.value === usual ? undefined : input.value) });
}

function booleanField(name, { default: usual, help }) {
  const control = h("input", { type: "checkbox" });
  control.checked = usual ?? false;
  return field(name, control, {
    help,
    isCheckbox: true,
    read: (input) => (input.checked === usual ? undefined : input.checked),
    write: (input, value) => (input.checked = value),
  });
}

function typedField(name, schema, { default: usual, isOptional, help }) {
  const isNumber = ["number", "integer"].includes(schema.type);
  const isList = schema.type === "array";
  const placeholder = usual === undefined ? (isOptional ? "none" : "") : asText(usual);
  const control = h("input", {
    type: "text",
    inputmode: isNumber ? "decimal" : null,
    autocomplete: "off",
    spellcheck: "false",
    placeholder,
  });
  const read = (input) => {
    const text = input.value.trim();
    if (text === "") return undefined;
    if (isList) return text === EMPTY_LIST ? [] : parseNumbers(text);
    return isNumber ? parseNumber(text) : text;
  };
  const remark = isNumber ? limits(schema) : isList && !schema.minItems ? `\`${EMPTY_LIST}\` for an empty list.` : "";
  return field(name, control, {
    help: [help, remark].filter(Boolean).join(" "),
    read,
    write: (input, value) => (input.value = asText(value)),
  });
}

/** A value in the notation of the text field. */
function asText(value) {
  if (Array.isArray(value)) return value.join(", ") || EMPTY_LIST;
  return String(value ?? "");
}

function limits({ minimum, exclusiveMinimum, maximum, exclusiveMaximum }) {
  const low = minimum ?? exclusiveMinimum;
  const high = maximum ?? exclusiveMaximum;
  if (low === undefined || high === undefined || high >= MAX_LIMIT) return "";
  const least = minimum === undefined ? "Greater than" : "At least";
  const most = maximum === undefined ? "less than" : "at most";
  return `${least} ${number(low)}, ${most} ${number(high)}.`;
}
