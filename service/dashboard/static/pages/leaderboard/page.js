// Optimizers by mean, in each setting that they were run in.

import { get } from "../../lib/api.js";
import { fill, h } from "../../lib/dom.js";
import { difference, interval, isShare, measured, number, pValue, words } from "../../lib/format.js";
import { intervalBar, scaleOf } from "../../components/interval_bar.js";
import { loadLooks, lookOf } from "../../lib/styles.js";
import { code, empty, facts, named, section, table, waiting } from "../../components/parts.js";

const METRICS = ["test_accuracy", "test_loss", "val_accuracy", "val_loss", "train_loss"];

export async function mount(root, { query, keepQuery, signal }) {
  const [catalog, { data: newest }] = await Promise.all([
    get("/v1/catalog", {}, signal),
    get("/v1/jobs", { status: "succeeded", limit: 1 }, signal),
    loadLooks(signal),
  ]);
  // Where nothing is asked for: the setting of the newest run, which is what people come to see.
  const asked = {
    dataset: query.get("dataset") ?? newest[0]?.spec.dataset.name ?? "digits",
    model: query.get("model") ?? newest[0]?.spec.model.name ?? "mlp",
    metric: query.get("metric") ?? "test_accuracy",
  };
  const boards = h("div", { class: "page" });
  const field = (title, name, options) => {
    const control = h(
      "select",
      {
        id: `board-${name}`,
        onchange: () => {
          asked[name] = control.value;
          keepQuery({ [name]: control.value });
          load();
        },
      },
      options.map((value) => h("option", { value }, name === "metric" ? words(value) : value)),
    );
    control.value = asked[name];
    return h("div", { class: "field" }, h("label", { for: `board-${name}` }, title), control);
  };

  function board(one, position, metric) {
    const scale = scaleOf(one.standings);
    const setting = Object.entries(one.setting).filter(([name]) => !["dataset.name", "model.name"].includes(name));
    const brief = setting
      .filter(([name]) => /budget|batch_size|device_kind|schedule\.name|precision|hidden/.test(name))
      .filter(([, value]) => value !== null);
    return section(
      position === 0 ? "The setting with most runs" : `Setting ${position + 1}`,
      facts([
        ["runs", one.runs],
        ...brief.map(([name, value]) => [
          name
            .replace(/^(environment|budget|model\.params|model)\./, "")
            .replaceAll("_", " ")
            .replace(".name", ""),
          typeof value === "number" ? number(value) : [value].flat().join(", "),
        ]),
      ]),
      table({
        label: `Standings of setting ${position + 1}`,
        isStrong: (row) =>
          row.rank === 1 && one.standings[1] && one.standings[1].p_behind !== null && one.standings[1].p_behind < 0.05,
        columns: [
          { title: "Rank", kind: "head", cell: (row) => String(row.rank) },
          { title: "Optimizer", kind: "text", cell: (row) => named(row.label, lookOf(row.optimizer.name)) },
          {
            title: "Seeds",
            cell: (row) => [
              String(row.n),
              row.diverged ? h("span", { class: "why" }, ` (${row.diverged} diverged)`) : "",
            ],
          },
          { title: "Mean", cell: (row) => measured(row.mean, metric) },
          {
            title: "",
            kind: "text",
            cell: (row) =>
              intervalBar(
                row,
                scale,
                lookOf(row.optimizer.name),
                `${measured(row.mean, metric)}, interval ${interval(row.interval, metric)}`,
              ),
          },
          { title: "95 % interval", cell: (row) => interval(row.interval, metric) },
          {
            title: "SD",
            cell: (row) =>
              row.sd === null ? "\u2013" : isShare(metric) ? (100 * row.sd).toFixed(2) : number(row.sd, 3),
          },
          { title: "Best", cell: (row) => measured(row.best, metric) },
          {
            title: "Behind the first",
            hint: "Mean paired difference on the seeds of both, with its 95 % interval",
            cell: (row) =>
              row.behind_first === null
                ? ""
                : `${difference(row.behind_first, metric)} (${interval(row.interval_behind, metric, (value) => difference(value, metric))})`,
          },
          {
            title: "p",
            hint: "Adjusted for all pairs of the board",
            cell: (row) => (row.p_behind === null ? "" : pValue(row.p_behind)),
          },
        ],
        rows: one.standings,
      }),
      h("details", {}, h("summary", {}, "The whole setting"), code(one.setting)),
    );
  }

  let last = null;
  async function load() {
    const mine = { ...asked };
    last = mine;
    fill(boards, waiting());
    try {
      const found = await get("/v1/leaderboard", mine, signal);
      if (last !== mine) return; // another setting was chosen since
      fill(
        boards,
        found.boards.length
          ? found.boards.map((one, position) => board(one, position, mine.metric))
          : h(
              "div",
              { class: "part" },
              empty(
                "No run like that has ended yet",
                `${mine.dataset} with ${mine.model}, by ${words(mine.metric)}.`,
                h("a", { class: "button primary", href: "/comparisons/new" }, "Compare optimizers on it"),
              ),
            ),
      );
    } catch (error) {
      if (error.name !== "AbortError" && last === mine)
        fill(
          boards,
          h(
            "div",
            { class: "part" },
            empty(
              "This could not be loaded",
              error.message,
              h("button", { type: "button", onclick: load }, "Try again"),
            ),
          ),
        );
    }
  }

  fill(
    root,
    h(
      "div",
      { class: "head" },
      h("h1", {}, "Leaderboard"),
      h(
        "p",
        { class: "sub" },
        "The latest run of each seed, of everybody. Optimizers are ranked within one setting: across data, budgets or machines, means say nothing.",
      ),
    ),
    h(
      "div",
      { class: "filters" },
      field(
        "Data set",
        "dataset",
        catalog.datasets.map((entry) => entry.name),
      ),
      field(
        "Model",
        "model",
        catalog.models.map((entry) => entry.name),
      ),
      field("Metric", "metric", METRICS),
    ),
    boards,
  );
  await load();
}
