// Elements, made and replaced. Text is always text: nothing here parses HTML.

/**
 * A new element. `attributes` may hold listeners (`onclick`), `class`, `dataset` and what else HTML or SVG knows;
 * null and false leave an attribute out. Children are nodes, strings, numbers or nested lists of them; null, false and
 * "" are nothing, and 0 is a number.
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) set(element, name, value);
  element.append(...nodes(children));
  return element;
}

/** The same in SVG's namespace. */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) set(element, name, value);
  element.append(...nodes(children));
  return element;
}

/** Put these children in the place of all there are; who works in there by keyboard or has scrolled keeps the place. */
export function fill(element, ...children) {
  return keepingThePlace(element, () => element.replaceChildren(...nodes(children)));
}

/**
 * The same, but what would not look different stays: a press or a selection of text that has begun there goes on.
 *
 * Children with `data-key` are known by it wherever they stand. Listeners that stay are those from before, so that they
 * must not depend on what was drawn last.
 */
export function renew(element, ...children) {
  return keepingThePlace(element, () => merge(element, nodes(children)));
}

function merge(element, wanted) {
  const keys = new Set(wanted.map(keyOf));
  for (const child of [...element.childNodes])
    if (keyOf(child) !== undefined && !keys.has(keyOf(child))) child.remove();
  const keyed = new Map([...element.children].map((child) => [keyOf(child), child]));
  let place = element.firstChild;
  for (const child of wanted) {
    const node = child instanceof Node ? child : document.createTextNode(child);
    const there = keyOf(node) === undefined ? place : keyed.get(keyOf(node));
    const kept = there && stays(there, node) ? there : node;
    if (kept === place) place = place.nextSibling;
    else element.insertBefore(kept, place);
    if (kept !== there && there) {
      if (there === place) place = place.nextSibling;
      there.remove();
    }
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

/** Whether a node can stand for another one, within which it may have had to change. */
function stays(there, node) {
  if (there === node || there.isEqualNode(node)) return true;
  if (!(there instanceof Element) || !there.cloneNode(false).isEqualNode(node.cloneNode(false))) return false;
  merge(there, [...node.childNodes]);
  return true;
}

const keyOf = (node) => node.dataset?.key;

/** Change what an element holds; who works in there by keyboard or has scrolled keeps the place. */
function keepingThePlace(element, change) {
  const held =
    element.contains(document.activeElement) && element !== document.activeElement ? document.activeElement : null;
  const place = held && [...element.querySelectorAll(CONTROLS)].indexOf(held);
  const scrolled = [...element.querySelectorAll(".scroll")].map((frame) => frame.scrollLeft);
  change();
  element.querySelectorAll(".scroll").forEach((frame, position) => (frame.scrollLeft = scrolled[position] ?? 0));
  if (held) successor(held, [...element.querySelectorAll(CONTROLS)], place)?.focus({ preventScroll: true });
  return element;
}

const CONTROLS = "a[href], button, input, select, textarea, summary, [tabindex]";
const called = (control) =>
  [control.tagName, control.getAttribute("href"), control.getAttribute("aria-label"), control.textContent].join();

/** The control that took another's place: itself, its like by name, else the one at its position. */
function successor(held, controls, place) {
  const next = controls[place];
  return controls.includes(held)
    ? held
    : (controls.find((one) => called(one) === called(held)) ?? (next?.tagName === held.tagName ? next : null));
}

function nodes(children) {
  return children
    .flat(Infinity)
    .filter((child) => child !== null && child !== undefined && child !== false && child !== "");
}

function set(element, name, value) {
  if (value === null || value === undefined) return;
  if (name.startsWith("aria-")) {
    element.setAttribute(name, String(value)); // there "false" says something
    return;
  }
  if (value === false) return;
  if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
  else if (name === "dataset") Object.assign(element.dataset, value);
  else if (name === "value" && element.tagName !== "OPTION" && element.tagName !== "PROGRESS") element.value = value;
  else if (name === "style") for (const [key, one] of Object.entries(value)) element.style.setProperty(key, one);
  else element.setAttribute(name, value === true ? "" : value);
}

let made = 0;

/** An id that no other element of the page has. */
export function uniqueId(prefix = "e") {
  made += 1;
  return `${prefix}-${made}`;
}

/** Call `work` after `milliseconds` without another call. */
export function debounced(work, milliseconds) {
  let timer;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...values), milliseconds);
  };
}

/** Call `work` now and, while calls go on, at most every `milliseconds`; the last call always counts. */
export function throttled(work, milliseconds, signal) {
  let waiting = false;
  let again = false;
  const run = () => {
    if (signal?.aborted) return;
    if (waiting) {
      again = true;
      return;
    }
    waiting = true;
    setTimeout(() => {
      waiting = false;
      if (again) {
        again = false;
        run();
      }
    }, milliseconds);
    work();
  };
  return run;
}
