// All comparisons, the newest first.

import { get } from "../api.js";
import { fill, h, throttled } from "../dom.js";
import { ago, many } from "../format.js";
import { follow } from "../live.js";
import { action, chip, empty, table, toast } from "../parts.js";

const PAGE = 50;

export async function mount(root, { signal }) {
  let rows = [];
  let next = null;
  const list = h("div", { class: "part" });
  const more = h("div", { class: "actions" });

  async function load({ isMore = false } = {}) {
    const page = await get("/v1/comparisons", { limit: PAGE, after: isMore ? next : "" }, signal);
    rows = isMore ? [...rows, ...page.data] : page.data;
    next = page.next;
    draw();
  }

  function draw() {
    if (!rows.length) {
      fill(
        list,
        empty(
          "Nothing compared yet",
          "Name two optimizers and a task: kotrain plans the runs, trains them and says how sure one can be.",
          h("a", { class: "button primary", href: "/comparisons/new" }, "Compare optimizers"),
        ),
      );
      fill(more);
      return;
    }
    fill(
      list,
      table({
        label: "Comparisons",
        columns: [
          { title: "Comparison", kind: "head", cell: (row) => h("a", { href: `/comparisons/${row.id}` }, row.name) },
          { title: "Status", kind: "text", cell: (row) => chip(row.status) },
          { title: "User", kind: "text", cell: (row) => row.user },
          {
            title: "Asked",
            cell: (row) => h("time", { datetime: row.created_at, title: row.created_at }, ago(row.created_at)),
          },
          {
            title: "Ended",
            cell: (row) =>
              row.finished_at
                ? h("time", { datetime: row.finished_at, title: row.finished_at }, ago(row.finished_at))
                : "",
          },
        ],
        rows,
        rowKey: (row) => row.id,
      }),
    );
    fill(
      more,
      next && action("Show more", () => load({ isMore: true })),
      h("span", { class: "note" }, `${many(rows.length, "comparison")} shown`),
    );
  }

  fill(
    root,
    h(
      "div",
      { class: "head" },
      h("h1", {}, "Comparisons"),
      h("span", { class: "space" }),
      h("a", { class: "button primary", href: "/comparisons/new" }, "Compare optimizers"),
    ),
    list,
    more,
  );
  await load();
  const refresh = throttled(() => rows.length <= PAGE && load().catch(() => {}), 2000, signal);
  follow("/v1/events", {
    signal,
    onOpen: (isFirst) => isFirst || refresh(),
    onEvent: ({ type, data }) => type === "status" && data.comparison && refresh(),
  }).catch((error) => toast(error.message, "error"));
}
