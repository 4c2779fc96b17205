// Fields made from the API's own JSON Schemas, so that what can be asked for and what is asked for never part.

import { fill, h, uniqueId } from "../lib/dom.js";
import { number } from "../lib/format.js";

const TITLES = { lr: "Learning rate", eps: "Epsilon", betas: "Betas", dataset: "Data set" };

const titled = (name) => TITLES[name] ?? name[0].toUpperCase() + name.slice(1).replaceAll("_", " ");

/** A schema with its `$ref` followed. */
function resolved(schema, defs) {
  return schema.$ref ? { ...defs[schema.$ref.split("/").at(-1)], ...schema, $ref: undefined } : schema;
}

/** The part of `X or null` that is X, and whether null is allowed. */
function unwrapped(schema, defs) {
  const found = resolved(schema, defs);
  if (!found.anyOf) return { schema: found, isOptional: false };
  const kinds = found.anyOf.filter((one) => one.type !== "null");
  return {
    schema: { ...found, anyOf: undefined, ...resolved(kinds[0], defs) },
    isOptional: kinds.length < found.anyOf.length,
  };
}

const NOTHING = "none"; // an empty list; an empty field stands for the default

/** A default as it is typed in. */
const typed = (value) =>
  Array.isArray(value) ? value.join(", ") || NOTHING : value === null || value === undefined ? "" : String(value);

/**
 * A labelled control. It has `name`, `element`, `value()` (undefined where nothing was given), `set(value)` and
 * `refuse(text)`, which shows what is wrong with it, or nothing.
 */
export function field(name, control, { title = titled(name), help, isCheck = false, read, write }) {
  const id = uniqueId(`field-${name}`);
  control.id = id;
  const error = h("span", { class: "error", id: `${id}-error` });
  const text = help && h("span", { class: "help", id: `${id}-help` }, marked(help));
  control.setAttribute("aria-describedby", [help && `${id}-help`, `${id}-error`].filter(Boolean).join(" "));
  const label = h("label", { for: id }, title);
  const element = h(
    "div",
    { class: isCheck ? "field check" : "field" },
    isCheck ? [control, label] : [label, control],
    text,
    error,
  );
  return {
    name,
    element,
    control,
    hint: control.placeholder,
    value: () => read(control),
    set: (value) => write(control, value),
    refuse(why) {
      fill(error, why ?? "");
      if (why) control.setAttribute("aria-invalid", "true");
      else control.removeAttribute("aria-invalid");
    },
  };
}

/** Text in which `names` are set as code. */
function marked(text) {
  return text.split("`").map((part, position) => (position % 2 ? h("code", {}, part) : part));
}

const DECIMAL = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;

/**
 * A number as typed, else the text itself, which the API then refuses with what would be right: also where `Number`
 * would read more than is meant (0x10, Infinity) or lose digits of a whole number.
 */
export function asNumber(text) {
  const plain = text.trim();
  const decimal = plain.replace(/\u2212/g, "-");
  const value = Number(decimal);
  const isExact = Number.isSafeInteger(value) || /[.e]/i.test(decimal);
  return DECIMAL.test(decimal) && Number.isFinite(value) && isExact ? value : plain;
}

/** The first paragraph of what the schema says, unless it only repeats the title. */
function explained(schema, title) {
  const text = (schema.description ?? "").split("\n\n")[0];
  return text.replace(/\.$/, "").toLowerCase() === title.toLowerCase() ? "" : text;
}

/** The field of one property. */
export function fieldOf(name, given, defs = {}, options = {}) {
  const { schema, isOptional } = unwrapped(given, defs);
  const help = options.help ?? explained(schema, options.title ?? titled(name));
  const shared = { title: options.title, help };
  if (schema.enum) {
    const control = h(
      "select",
      {},
      schema.enum.map((value) => h("option", { value }, value)),
    );
    control.value = given.default ?? schema.enum[0];
    return field(name, control, {
      ...shared,
      read: (one) => (one.value === given.default ? undefined : one.value),
      write: (one, value) => (one.value = value),
    });
  }
  if (schema.type === "boolean") {
    const control = h("input", { type: "checkbox" });
    control.checked = given.default ?? false;
    return field(name, control, {
      ...shared,
      isCheck: true,
      read: (one) => (one.checked === given.default ? undefined : one.checked),
      write: (one, value) => (one.checked = value),
    });
  }
  const isNumber = ["number", "integer"].includes(schema.type);
  const isList = schema.type === "array";
  const hint =
    given.default === null || given.default === undefined ? (isOptional ? "none" : "") : typed(given.default);
  const control = h("input", {
    type: "text",
    inputmode: isNumber ? "decimal" : null,
    autocomplete: "off",
    spellcheck: "false",
    placeholder: hint,
  });
  const read = (one) => {
    const text = one.value.trim();
    if (text === "") return undefined;
    if (isList) return text === NOTHING ? [] : text.split(",").map(asNumber);
    return isNumber ? asNumber(text) : text;
  };
  return field(name, control, {
    ...shared,
    help: isList && !schema.minItems ? `${help} \`${NOTHING}\`: an empty list.` : limits(help, schema, isNumber),
    read,
    write: (one, value) => (one.value = typed(value)),
  });
}

function limits(help, schema, isNumber) {
  if (!isNumber) return help;
  const low = schema.minimum ?? schema.exclusiveMinimum;
  const high = schema.maximum ?? schema.exclusiveMaximum;
  if (low === undefined || high === undefined || high >= 1e6) return help;
  const least = schema.exclusiveMinimum === undefined ? `${number(low)} to` : `Above ${number(low)}, to`;
  return `${help ? `${help} ` : ""}${least} ${number(high)}.`;
}

/**
 * The parameters of a choice. Where the schema has several forms (KO on each of its bases), a select picks one by the
 * property that is constant in each.
 */
function paramsForm(schema, { skip = [] } = {}) {
  const defs = schema.$defs ?? {};
  const branches = (schema.oneOf ?? schema.anyOf ?? [schema]).map((one) => resolved(one, defs));
  const key =
    branches.length > 1 &&
    Object.keys(branches[0].properties).find((name) =>
      branches.every((one) => one.properties[name]?.const !== undefined),
    );
  const box = h("div", { class: "choice" });
  const usual =
    schema.default?.[key] ??
    (branches.some((one) => one.properties[key]?.const === "adam") ? "adam" : branches[0].properties[key]?.const);
  let fields = [];
  let picker = null;

  function build(branch, values = {}) {
    fields = Object.entries(branch.properties ?? {})
      .filter(([name, property]) => property.const === undefined && !skip.includes(name))
      .map(([name, property]) => fieldOf(name, property, defs));
    for (const one of fields) if (values[one.name] !== undefined) one.set(values[one.name]);
    const leading = fields.filter((one) => LEADING.includes(one.name));
    const others = fields.filter((one) => !LEADING.includes(one.name));
    const few = fields.length <= 4 && !fields.some((one) => FOLDED.includes(one.name));
    fill(
      box,
      (picker || leading.length || few) &&
        h(
          "div",
          { class: "fields" },
          picker && picker.element,
          (few ? fields : leading).map((one) => one.element),
        ),
      !few &&
        others.length > 0 &&
        h(
          "details",
          { open: others.some((one) => values[one.name] !== undefined) },
          h("summary", {}, `${others.length} more ${others.length === 1 ? "parameter" : "parameters"}`),
          h(
            "div",
            { class: "fields" },
            others.map((one) => one.element),
          ),
        ),
    );
  }

  const branchOf = (name) => branches.find((one) => one.properties[key]?.const === name) ?? branches[0];
  if (key) {
    const control = h(
      "select",
      {},
      branches.map((one) => h("option", { value: one.properties[key].const }, one.properties[key].const)),
    );
    control.value = usual;
    control.addEventListener("change", () => {
      const kept = values();
      build(branchOf(control.value), kept);
    });
    picker = field(key, control, {
      help: "What it stands on.",
      read: (one) => (one.value === usual ? undefined : one.value),
      write: (one, value) => (one.value = value),
    });
  }
  const values = () =>
    Object.fromEntries(
      [...(picker ? [picker] : []), ...fields]
        .filter((one) => !one.control.disabled)
        .map((one) => [one.name, one.value()])
        .filter(([, value]) => value !== undefined),
    );
  build(key ? branchOf(usual) : branches[0]);
  return {
    element: box,
    values,
    set(given) {
      if (picker && given[key] !== undefined) picker.set(given[key]);
      build(key ? branchOf(picker.control.value) : branches[0], given);
    },
    /** Take away the fixed values of these, which are tuned. */
    tune(names) {
      for (const { name, control, hint } of fields) {
        control.disabled = names.includes(name);
        control.placeholder = control.disabled ? "tuned below" : hint;
      }
    },
    /** The parameters that could be tuned, by name: the values of a choice, null for a number. */
    tunable() {
      const numbers = fields.filter((one) => one.control.inputMode === "decimal");
      const choices = fields.filter((one) => one.control.tagName === "SELECT");
      const options = (one) => [...one.control.options].map((option) => option.value);
      return Object.fromEntries([
        ...numbers.map((one) => [one.name, null]),
        ...choices.map((one) => [one.name, options(one)]),
      ]);
    },
    refuse: (errors) => refuseIn([...(picker ? [picker] : []), ...fields], errors),
  };
}

const FOLDED = ["split_seed"];
const LEADING = [
  "lr",
  "base",
  "collision",
  "gamma",
  "momentum",
  "weight_decay",
  "hidden",
  "split",
  "image_size",
  "control",
  "strength",
  "warmup_steps",
];

/** Show each error at its field; answers those that are nobody's. `errors` has pointers without the fields' own parent. */
export function refuseIn(fields, errors) {
  const named = (error) => error.pointer.split("/")[1];
  for (const one of fields) {
    const own = errors.filter((error) => named(error) === one.name);
    one.refuse(own.map((error) => error.detail).join("; "));
  }
  return errors.filter((error) => !fields.some((one) => one.name === named(error)));
}

/** The errors below a pointer, as seen from there. */
export function below(errors, prefix) {
  return errors
    .filter((error) => error.pointer === prefix || error.pointer.startsWith(`${prefix}/`))
    .map((error) => ({ ...error, pointer: error.pointer.slice(prefix.length) || "/" }));
}

/** A choice of the catalog: which one, and its parameters. */
export class Choice {
  constructor(kind, title, entries, { onChange } = {}) {
    const control = h("select");
    this.pick = field(kind, control, { title, read: (one) => one.value, write: (one, to) => (one.value = to) });
    this.about = h("p", { class: "note" });
    this.box = h("div");
    this.element = h("div", { class: "choice" }, this.pick.element, this.about, this.box);
    this.list(entries);
    control.addEventListener("change", () => {
      this.show();
      onChange?.();
    });
    control.value = entries.find((entry) => entry.present !== false)?.name;
    this.show();
  }

  list(entries) {
    this.entries = entries;
    fill(
      this.pick.control,
      entries.map(({ name, present }) =>
        h("option", { value: name, disabled: present === false }, present === false ? `${name} (not here)` : name),
      ),
    );
  }

  get name() {
    return this.pick.control.value;
  }

  get entry() {
    return this.entries.find((one) => one.name === this.name);
  }

  /** Offer these only, keeping the choice where it is among them. */
  offer(entries) {
    const was = this.name;
    this.list(entries);
    this.pick.control.value = entries.some((entry) => entry.name === was) ? was : entries[0]?.name;
    if (this.name !== was) this.show();
  }

  show() {
    fill(this.about, this.entry?.title ?? "");
    this.params = paramsForm(this.entry?.params ?? { properties: {} });
    fill(this.box, this.params.element);
  }

  /** As the API takes it: the bare name where all parameters are defaults. */
  value() {
    const params = this.params.values();
    return Object.keys(params).length ? { name: this.name, params } : this.name;
  }

  set(given) {
    const { name, params } = typeof given === "string" ? { name: given } : given;
    // What is not there any more is shown, and refused by the API, rather than replaced in silence.
    if (!this.entries.some((entry) => entry.name === name)) this.list([...this.entries, { name, present: false }]);
    this.pick.control.value = name;
    this.show();
    this.params.set(params ?? {});
  }

  refuse(errors) {
    const own = errors.filter((error) => !error.pointer.startsWith("/params/"));
    this.pick.refuse(own.map((error) => error.detail).join("; ") || null);
    return this.params.refuse(below(errors, "/params"));
  }
}

/** Labels of one's own as `key:value, key:value`. */
export function tagsField() {
  const control = h("input", { type: "text", autocomplete: "off", placeholder: "study:first, machine:a" });
  const pairs = () => {
    const given = control.value.split(",").map((pair) => pair.trim());
    return given.filter(Boolean).map((pair) => pair.split(":"));
  };
  const tags = field("tags", control, {
    title: "Tags",
    help: "Your own labels, key:value, to find jobs by.",
    read: (one) => {
      if (!pairs().length) return undefined;
      if (trouble()) return one.value; // no object can say it: the API refuses it, and the field says why
      return Object.fromEntries(pairs().map(([name, ...value]) => [name.trim(), value.join(":").trim()]));
    },
    write: (one, value) =>
      (one.value = Object.entries(value)
        .map(([name, to]) => `${name}:${to}`)
        .join(", ")),
  });
  function trouble() {
    const names = pairs().map(([name]) => name.trim());
    const bare = pairs().find((pair) => pair.length === 1);
    const twice = names.find((name, position) => names.indexOf(name) < position);
    if (bare) return `${bare[0]} needs a value, as in ${bare[0]}:a`;
    return twice === undefined ? null : `${twice} stands twice; a tag has one value`;
  }
  return { ...tags, refuse: (why) => tags.refuse(why && (trouble() ?? why)) };
}

/** A field of text. */
export function textField(name, title, { help, placeholder, value = "" } = {}) {
  const control = h("input", { type: "text", autocomplete: "off", placeholder, value });
  return field(name, control, {
    title,
    help,
    read: (one) => one.value.trim() || undefined,
    write: (one, to) => (one.value = to ?? ""),
  });
}

/** A field that chooses. */
export function selectField(name, title, choices, { help, value } = {}) {
  const control = h(
    "select",
    {},
    choices.map(([key, text]) => h("option", { value: key }, text)),
  );
  if (value !== undefined) control.value = value;
  return field(name, control, { title, help, read: (one) => one.value, write: (one, to) => (one.value = to) });
}
