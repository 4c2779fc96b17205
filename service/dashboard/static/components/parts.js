// What pages are made of: states, chips, tables, figures' frames.

import { fill, h, svg, uniqueId } from "../lib/dom.js";
import { optimizerName } from "../lib/format.js";
import { lookOf, marker } from "../lib/styles.js";

/** Something is being fetched. It shows only after a moment, so that quick answers do not flicker. */
export function waiting(what = "Loading") {
  return h(
    "div",
    { class: "waiting", role: "status" },
    h("span", { class: "spinner", "aria-hidden": "true" }),
    `${what} \u2026`,
  );
}

/** Something went wrong or is not there: what, why, and what can be done. */
export function problem(title, lines, ...actions) {
  return h(
    "section",
    { class: "problem", role: "alert" },
    h("h1", {}, title),
    lines.map((line) => h("p", {}, line)),
    actions.length > 0 && h("p", { class: "actions" }, actions),
  );
}

/** There is nothing yet, and how to change that. */
export function empty(title, text, ...actions) {
  return h(
    "div",
    { class: "empty" },
    h("p", { class: "lead" }, title),
    text && h("p", {}, text),
    actions.length > 0 && h("p", { class: "actions" }, actions),
  );
}

const SIGNS = {
  queued: "\u25cb",
  running: "\u25d0",
  succeeded: "\u2713",
  failed: "\u2715",
  cancelled: "\u2013",
  up: "\u25cf",
  stopped: "\u25cb",
  lost: "\u2715",
};

/** A status by sign, word and colour at once. */
export function chip(status, title) {
  return h(
    "span",
    { class: `chip ${status}`, title },
    h("span", { class: "sign", "aria-hidden": "true" }, SIGNS[status] ?? ""),
    status,
  );
}

/** What became of a job: its status, or why it ended where that says more. */
export function jobChip(job) {
  if (job.cancel_requested && job.status === "running") return chip("running", "asked to stop");
  const why = job.reason && !["completed", "cancelled"].includes(job.reason) ? job.reason.replaceAll("_", " ") : null;
  return h("span", { class: "chips" }, chip(job.status), why && h("span", { class: "why" }, why));
}

/** How far something is, between 0 and 1; without a known end the bar only says that it moves. */
export function bar(share, label) {
  const known = share !== null && share !== undefined;
  return h(
    "span",
    {
      class: known ? "progress" : "progress moving",
      role: "progressbar",
      "aria-label": label,
      "aria-valuemin": "0",
      "aria-valuemax": "100",
      "aria-valuenow": known ? Math.round(100 * share) : null,
    },
    h("span", { class: "done", style: { width: known ? `${100 * Math.min(1, share)}%` : "100%" } }),
  );
}

/** An optimizer's sign in its colour, beside its label. */
export function named(label, look) {
  return h("span", { class: "named" }, swatch(look), h("span", {}, label));
}

/** The sign alone. */
function swatch(look) {
  return svg(
    "svg",
    { class: `swatch c${look.colour}`, viewBox: "-6 -6 12 12", "aria-hidden": "true" },
    svg("path", { d: marker(look) }),
  );
}

/** A job's optimizer, named. */
export function optimizer(spec) {
  return named(optimizerName(spec.optimizer), lookOf(spec.optimizer.name));
}

/**
 * A table. A column: `{title, cell(row), kind: "text" | "number", sort, hint}`; with `onSort` those with `sort` are buttons.
 * On narrow screens it scrolls within its own frame.
 */
export function table({ caption, columns, rows, sorted, onSort, rowKey, isStrong, label }) {
  const head = columns.map((column) => {
    const isSorted = sorted && column.sort === sorted.by;
    const title = column.hint ? h("abbr", { title: column.hint }, column.title) : column.title;
    const content =
      column.sort && onSort
        ? h(
            "button",
            { class: "sort", type: "button", onclick: () => onSort(column.sort) },
            title,
            h("span", { "aria-hidden": "true" }, isSorted ? (sorted.descending ? " \u2193" : " \u2191") : ""),
          )
        : title;
    return h(
      "th",
      {
        class: column.kind ?? "number",
        scope: "col",
        "aria-sort": isSorted ? (sorted.descending ? "descending" : "ascending") : null,
      },
      content,
    );
  });
  const body = rows.map((row) => tableRow({ columns, row, rowKey, isStrong }));
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": label ?? caption },
    h(
      "table",
      {},
      caption && h("caption", {}, h("span", {}, caption)),
      h("thead", {}, h("tr", {}, head)),
      h("tbody", {}, body),
    ),
  );
}

/** One row of such a table. */
export function tableRow({ columns, row, rowKey, isStrong }) {
  return h(
    "tr",
    { class: isStrong?.(row) ? "strong" : null, dataset: rowKey ? { key: rowKey(row) } : {} },
    columns.map((column, position) =>
      position === 0 && column.kind === "head"
        ? h("th", { class: "text", scope: "row" }, column.cell(row))
        : h("td", { class: column.kind === "head" ? "text" : (column.kind ?? "number") }, column.cell(row)),
    ),
  );
}

/** Pairs of name and value. */
export function facts(pairs) {
  const found = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return h(
    "dl",
    { class: "facts" },
    found.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
  );
}

/** A part of a page with a heading. */
export function section(title, ...children) {
  const id = uniqueId("section");
  return h("section", { class: "part", "aria-labelledby": id }, h("h2", { id }, title), children);
}

/** Views of one thing, one at a time; `onShow` gets the name of the shown one, which may be in the address. */
export function tabs(label, views, shown, onShow) {
  const panel = h("div", { role: "tabpanel", tabindex: "0", id: uniqueId("panel") });
  const buttons = views.map(({ name, title }) =>
    h(
      "button",
      {
        type: "button",
        role: "tab",
        id: uniqueId("tab"),
        "aria-controls": panel.id,
        onclick: () => select(name),
        onkeydown: (event) => move(event, name),
      },
      title,
    ),
  );
  function select(name) {
    views.forEach((view, position) => {
      const isIt = view.name === name;
      buttons[position].setAttribute("aria-selected", isIt);
      buttons[position].tabIndex = isIt ? 0 : -1;
      if (isIt) {
        panel.setAttribute("aria-labelledby", buttons[position].id);
        fill(panel, view.content());
      }
    });
    onShow?.(name);
  }
  function move(event, name) {
    const here = views.findIndex((view) => view.name === name);
    const there = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: -1 }[event.key];
    if (there === undefined) return;
    event.preventDefault();
    const position = (there + views.length) % views.length;
    select(views[position].name);
    buttons[position].focus();
  }
  select(views.some((view) => view.name === shown) ? shown : views[0].name);
  return h(
    "div",
    { class: "tabs" },
    h("div", { class: "tablist", role: "tablist", "aria-label": label }, buttons),
    panel,
  );
}

/** A short message that goes by itself; errors stay longer. */
export function toast(text, kind = "note") {
  const box = h(
    "div",
    { class: `toast ${kind}` },
    h("span", {}, text),
    h("button", { type: "button", class: "quiet small", "aria-label": "Close", onclick: () => box.remove() }, "\u2715"),
  );
  document.getElementById("toasts").append(box);
  setTimeout(() => box.remove(), kind === "error" ? 15_000 : 6_000);
}

/** Whether a stream is connected: the sign, and `onState` for `follow`. */
export function liveSign() {
  const live = h("span", { class: "live" }, "connecting");
  const onState = (isLive) => {
    live.classList.toggle("on", isLive);
    live.textContent = isLive ? "live" : "reconnecting";
  };
  return { live, onState };
}

/**
 * A button that cannot be pressed twice while its work goes on; errors become a message. With `confirm` it asks first,
 * and a double click is no answer.
 */
export function action(title, work, { kind = "", confirm, label } = {}) {
  const button = h("button", { type: "button", class: kind, "aria-label": label, onclick: press }, title);
  let isSure = !confirm;
  let timer;
  function ask() {
    isSure = true;
    button.textContent = confirm;
    timer = setTimeout(forget, 4000);
  }
  function forget() {
    clearTimeout(timer);
    isSure = !confirm;
    button.textContent = title;
  }
  async function press(event) {
    if (confirm && event.detail > 1) return;
    if (!isSure) {
      ask();
      return;
    }
    clearTimeout(timer);
    button.disabled = true;
    try {
      await work();
    } catch (error) {
      if (error.name !== "AbortError") toast(error.message, "error");
    } finally {
      button.disabled = false;
      forget();
    }
  }
  return button;
}

/** A value that can be copied with one click; where the browser lets no page copy, the click selects it. */
export function copyable(text) {
  const value = h("code", {}, text);
  async function copy() {
    try {
      await navigator.clipboard.writeText(text); // there is no clipboard but over https and on this machine
      toast("Copied.");
    } catch {
      getSelection().selectAllChildren(value);
      toast("The browser does not allow copying here. It is selected: copy it with the keyboard.");
    }
  }
  const button = h(
    "button",
    {
      type: "button",
      class: "quiet small copy",
      title: `Copy ${text}`,
      onclick: copy,
    },
    "Copy",
  );
  return h("span", { class: "copyable" }, value, button);
}

/** Indented JSON, as text. */
export function code(value) {
  return h(
    "pre",
    { class: "code", tabindex: "0" },
    h("code", {}, typeof value === "string" ? value : JSON.stringify(value, null, 2)),
  );
}
