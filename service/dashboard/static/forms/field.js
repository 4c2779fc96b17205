// A labelled control with help and error message.

import { fill, h, uniqueId } from "../lib/dom.js";
import { title as titled } from "../lib/format.js";

const TITLES = { eps: "Epsilon", dataset: "Data set" };

/** The title of a field by its name in the API. */
export const titleOf = (name) => TITLES[name] ?? titled(name);

const readText = (control) => control.value.trim() || undefined;
const writeText = (control, value) => (control.value = value ?? "");

/**
 * A control with its label, help and error message. It has `name`, `element`, `control` and its `placeholder`;
 * `value()` is undefined for an empty field, `set(value)` fills it in, and `setError(text)` shows an error or, without
 * text, removes it.
 */
export function field(name, control, options = {}) {
  const { title = titleOf(name), help, isCheckbox = false, read = readText, write = writeText } = options;
  const id = uniqueId(`field-${name}`);
  control.id = id;
  const error = h("span", { class: "error", id: `${id}-error` });
  const helpText = help && h("span", { class: "help", id: `${id}-help` }, withCode(help));
  control.setAttribute("aria-describedby", [help && `${id}-help`, error.id].filter(Boolean).join(" "));
  const label = h("label", { for: id }, title);
  const labelled = isCheckbox ? [control, label] : [label, control];
  return {
    name,
    control,
    placeholder: control.placeholder,
    element: h("div", { class: isCheckbox ? "field check" : "field" }, labelled, helpText, error),
    value: () => read(control),
    set: (value) => write(control, value),
    setError(text) {
      fill(error, text ?? "");
      if (text) control.setAttribute("aria-invalid", "true");
      else control.removeAttribute("aria-invalid");
    },
  };
}

/** Text in which names between backticks are set as code. */
const withCode = (text) => text.split("`").map((part, position) => (position % 2 ? h("code", {}, part) : part));

/** A field for text. */
export const textField = (name, options = {}) =>
  field(name, h("input", { type: "text", autocomplete: "off", placeholder: options.placeholder }), options);

/** A drop-down list of `choices`, pairs of value and text. */
export function selectField(name, choices, options = {}) {
  const control = h(
    "select",
    {},
    choices.map(([value, text]) => h("option", { value }, text)),
  );
  const write = (select, value) => (select.value = value);
  return field(name, control, { read: (select) => select.value, write, ...options });
}
