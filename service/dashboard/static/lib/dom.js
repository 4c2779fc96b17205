// Create, replace and patch elements. Strings become text nodes and are never parsed as HTML.

import { addressOf } from "./addresses.js";

/**
 * A new element. `attributes` may hold listeners (`onclick`), `class`, `dataset`, `style` and any attribute of HTML or
 * SVG; null and false omit one. `href` and `src` are paths of kotrain or other addresses. Children are nodes, strings, numbers or nested lists of them; null, false and "" are
 * omitted.
 */
export function h(tag, attributes = {}, ...children) {
  return build(document.createElement(tag), attributes, children);
}

/** A new element of SVG; otherwise like `h`. */
export function svg(tag, attributes = {}, ...children) {
  return build(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) setAttribute(element, name, value);
  element.append(...nodes(children));
  return element;
}

/** Replace all children; keyboard focus and horizontal scroll positions inside are kept. */
export function fill(element, ...children) {
  return keepPosition(element, () => element.replaceChildren(...nodes(children)));
}

/**
 * Change only the children that differ, so that a pressed button or a text selection inside survives.
 *
 * Children with `data-key` are matched by it at any position. Kept elements keep their old listeners, which must
 * therefore not depend on the data of the last drawing.
 */
export function patch(element, ...children) {
  return keepPosition(element, () => merge(element, nodes(children)));
}

function merge(element, wanted) {
  const keys = new Set(wanted.map(keyOf));
  for (const child of Array.from(element.childNodes))
    if (keyOf(child) !== undefined && !keys.has(keyOf(child))) child.remove();
  const keyed = new Map(Array.from(element.children, (child) => [keyOf(child), child]));
  let position = element.firstChild;
  for (const child of wanted) {
    const node = child instanceof Node ? child : document.createTextNode(child);
    const old = keyOf(node) === undefined ? position : keyed.get(keyOf(node));
    const kept = old && becomes(old, node) ? old : node;
    if (kept === position) position = position.nextSibling;
    else element.insertBefore(kept, position);
    if (kept !== old && old) {
      if (old === position) position = position.nextSibling;
      old.remove();
    }
  }
  while (position) {
    const next = position.nextSibling;
    position.remove();
    position = next;
  }
}

/** Make a node equal to another one by patching its children; false if that is not possible. */
function becomes(old, node) {
  if (old === node || old.isEqualNode(node)) return true;
  if (!(old instanceof Element) || !old.cloneNode(false).isEqualNode(node.cloneNode(false))) return false;
  merge(old, Array.from(node.childNodes));
  return true;
}

const keyOf = (node) => node.dataset?.key;

const CONTROLS = "a[href], button, input, select, textarea, summary, [tabindex]";

function keepPosition(element, change) {
  const active = document.activeElement;
  const focused = element !== active && element.contains(active) ? active : null;
  const index = focused && controlsIn(element).indexOf(focused);
  const scrolled = Array.from(element.querySelectorAll(".scroll"), (frame) => frame.scrollLeft);
  change();
  element.querySelectorAll(".scroll").forEach((frame, position) => (frame.scrollLeft = scrolled[position] ?? 0));
  if (focused) successor(focused, controlsIn(element), index)?.focus({ preventScroll: true });
  return element;
}

const controlsIn = (element) => Array.from(element.querySelectorAll(CONTROLS));

const nameOf = (control) =>
  [control.tagName, control.getAttribute("href"), control.getAttribute("aria-label"), control.textContent].join();

/** The control that gets the focus: the same one, else one with the same name, else one of its kind at its index. */
function successor(focused, controls, index) {
  if (controls.includes(focused)) return focused;
  const next = controls[index];
  const isSameKind = next?.tagName === focused.tagName;
  return controls.find((control) => nameOf(control) === nameOf(focused)) ?? (isSameKind ? next : null);
}

function nodes(children) {
  return children
    .flat(Infinity)
    .filter((child) => child !== null && child !== undefined && child !== false && child !== "");
}

function setAttribute(element, name, value) {
  if (value === null || value === undefined) return;
  if (name.startsWith("aria-")) {
    element.setAttribute(name, String(value)); // "false" is a valid value
    return;
  }
  if (value === false) return;
  if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
  else if (name === "dataset") Object.assign(element.dataset, value);
  else if (name === "value" && element.tagName !== "OPTION" && element.tagName !== "PROGRESS") element.value = value;
  else if (name === "style") for (const entry of Object.entries(value)) element.style.setProperty(...entry);
  else if (name === "href" || name === "src") element.setAttribute(name, addressOf(value));
  else element.setAttribute(name, value === true ? "" : value);
}

let count = 0;

/** An id that no other element of the page has. */
export function uniqueId(prefix = "e") {
  count += 1;
  return `${prefix}-${count}`;
}

/** Whether a click opens its link in another tab or window. */
export const opensElsewhere = (event) => event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0;
