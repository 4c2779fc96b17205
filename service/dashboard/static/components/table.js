// Tables, which scroll inside their own frame on narrow screens.

import { h } from "../lib/dom.js";

/**
 * A table. A column is `{title, cell(row), kind: "head" | "text" | "wide" | "wrapped" | "number", sort, hint}`; false omits it.
 * With `onSort`, columns with `sort` get a button. Rows for which `isStrong(row)` holds are highlighted.
 */
export function table({ caption, columns: allColumns, rows, sorted, onSort, rowKey, isStrong, label }) {
  const columns = allColumns.filter(Boolean);
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": label ?? caption },
    h(
      "table",
      {},
      caption && h("caption", {}, h("span", {}, caption)),
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          columns.map((column) => columnHead(column, { sorted, onSort })),
        ),
      ),
      h(
        "tbody",
        {},
        rows.map((row) => tableRow({ columns, row, rowKey, isStrong })),
      ),
    ),
  );
}

function columnHead(column, { sorted, onSort }) {
  const order = sorted && column.sort === sorted.by ? (sorted.descending ? "descending" : "ascending") : null;
  const title = column.hint ? h("abbr", { title: column.hint }, column.title) : column.title;
  const arrow = { descending: " \u2193", ascending: " \u2191" }[order] ?? "";
  const content =
    column.sort && onSort
      ? h(
          "button",
          { class: "sort", type: "button", onclick: () => onSort(column.sort) },
          title,
          h("span", { "aria-hidden": "true" }, arrow),
        )
      : title;
  return h("th", { class: cellClass(column), scope: "col", "aria-sort": order }, content);
}

const cellClass = ({ kind = "number" }) => (kind === "head" ? "text" : kind);

/** One row of a table. */
export function tableRow({ columns, row, rowKey, isStrong }) {
  return h(
    "tr",
    { class: isStrong?.(row) ? "strong" : null, dataset: rowKey ? { key: rowKey(row) } : {} },
    columns.map((column, position) =>
      position === 0 && column.kind === "head"
        ? h("th", { class: "text", scope: "row" }, column.cell(row))
        : h("td", { class: cellClass(column) }, column.cell(row)),
    ),
  );
}
