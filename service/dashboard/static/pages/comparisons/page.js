// The list of comparisons, newest first.

import { actionButton } from "../../components/buttons.js";
import { actions, linkButton, pageHead, spacer, time } from "../../components/layout.js";
import { emptyState } from "../../components/states.js";
import { statusChip } from "../../components/status.js";
import { table } from "../../components/table.js";
import { toastError } from "../../components/toast.js";
import { fill, h, patch } from "../../lib/dom.js";
import { follow } from "../../lib/event_stream.js";
import { ago, counted } from "../../lib/format.js";
import { firstRows } from "../../lib/pagination.js";
import { refresher } from "../../lib/refresher.js";

const PAGE = 50; // rows

export async function mount(root, { query, keepQuery, signal }) {
  let rows = [];
  let archived = query.get("archived") ?? "";
  let wanted = PAGE;
  const list = h("div", { class: "part" });
  const count = h("span", { class: "note" });
  const moreButton = actionButton("Show more", async () => {
    wanted = rows.length + PAGE;
    show(await fetchRows());
  });

  async function fetchRows() {
    const requested = wanted;
    return { ...(await firstRows("/v1/comparisons", { archived }, requested, signal)), requested };
  }

  function show(answer) {
    if (answer.requested < wanted) return; // more rows were requested meanwhile
    rows = answer.rows;
    moreButton.hidden = !answer.next;
    count.textContent = rows.length ? `${counted(rows.length, "comparison")} shown` : "";
    if (rows.length) patch(list, comparisonTable(rows));
    else fill(list, noComparisons());
  }

  const archivedTitle = () => (archived ? "Hide archived" : "Show archived");
  const archivedButton = h("button", { type: "button", onclick: toggleArchived }, archivedTitle());
  async function toggleArchived() {
    archived = archived ? "" : "true";
    keepQuery({ archived });
    archivedButton.textContent = archivedTitle();
    refresh();
  }

  // Before the first await, because the button can be pressed while the rows are being fetched.
  const refresh = refresher(fetchRows, show, { milliseconds: 2000, signal, onError: toastError });
  fill(root, pageHead("Comparisons", {}, spacer(), archivedButton, newButton()), list, actions(moreButton, count));
  show(await fetchRows());
  follow("/v1/events", {
    signal,
    onOpen: refresh,
    onEvent: ({ type, data }) => {
      if (type === "status" && data.comparison) refresh();
    },
  }).catch(toastError);
}

// --- view ---

const newButton = () => linkButton("Compare optimizers", "/comparisons/new", "primary");

const noComparisons = () =>
  emptyState(
    "No comparisons yet",
    "Select optimizers and tasks: kotrain plans and trains the runs and reports a verdict.",
    newButton(),
  );

const comparisonLink = ({ id, name, archived_at: archived }) => [
  h("a", { href: `/comparisons/${id}` }, name),
  archived && h("small", { class: "why" }, " archived"),
];

const comparisonTable = (rows) =>
  table({
    label: "Comparisons",
    columns: [
      { title: "Comparison", kind: "head", cell: comparisonLink },
      { title: "Status", kind: "text", cell: (row) => statusChip(row.status) },
      { title: "User", kind: "text", cell: (row) => row.user },
      { title: "Submitted", cell: (row) => time(row.created_at, ago(row.created_at)) },
      { title: "Finished", cell: (row) => row.finished_at && time(row.finished_at, ago(row.finished_at)) },
    ],
    rows,
    rowKey: (row) => row.id,
  });
