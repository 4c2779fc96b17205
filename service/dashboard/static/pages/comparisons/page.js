// All comparisons, the newest first.

import { fill, h, renew } from "../../lib/dom.js";
import { ago, many } from "../../lib/format.js";
import { beginning } from "../../lib/pagination.js";
import { follow } from "../../lib/event_stream.js";
import { refresher } from "../../lib/refresher.js";
import { action, chip, empty, table, toast } from "../../components/parts.js";

const PAGE = 50;

export async function mount(root, { signal }) {
  let rows = [];
  let next = null;
  let wanted = PAGE;
  const list = h("div", { class: "part" });
  const shown = h("span", { class: "note" });

  async function ask() {
    const asked = wanted;
    return { ...(await beginning("/v1/comparisons", {}, asked, signal)), asked };
  }

  function show(found) {
    if (found.asked < wanted) return; // more was asked for meanwhile
    ({ rows, next } = found);
    draw();
  }

  const showMore = action("Show more", async () => {
    wanted = rows.length + PAGE;
    show(await ask());
  });

  function draw() {
    showMore.hidden = !next;
    shown.textContent = rows.length ? `${many(rows.length, "comparison")} shown` : "";
    if (!rows.length) {
      fill(
        list,
        empty(
          "Nothing compared yet",
          "Name two optimizers and a task: kotrain plans the runs, trains them and says how sure one can be.",
          h("a", { class: "button primary", href: "/comparisons/new" }, "Compare optimizers"),
        ),
      );
      return;
    }
    renew(
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
    h("div", { class: "actions" }, showMore, shown),
  );
  show(await ask());
  const refresh = refresher(ask, show, { milliseconds: 2000, signal });
  follow("/v1/events", {
    signal,
    onOpen: refresh,
    onEvent: ({ type, data }) => type === "status" && data.comparison && refresh(),
  }).catch((error) => toast(error.message, "error"));
}
