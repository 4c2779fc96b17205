// Optimizers ranked by mean score, for each setting they were run in.

import { h, fill } from "../../lib/dom.js";
import { pageHead } from "../../components/layout.js";
import { loading } from "../../components/states.js";
import { get } from "../../lib/api.js";
import { setStyles } from "../../lib/styles.js";
import { boardsView, errorView, filtersView } from "./view.js";

const USUAL = { dataset: "digits", model: "mlp", metric: "test_accuracy" };

export async function mount(root, { query, keepQuery, signal }) {
  const [catalog, { data: newest }] = await Promise.all([
    get("/v1/catalog", {}, signal),
    get("/v1/jobs", { status: "succeeded", limit: 1 }, signal),
  ]);
  setStyles(catalog);
  const selected = initial(query, newest[0]);
  const boards = h("div", { class: "page" });
  let latest = null; // selection that was requested

  function select(name, value) {
    selected[name] = value;
    keepQuery({ [name]: value });
    load();
  }

  async function load() {
    const request = { ...selected };
    latest = request;
    fill(boards, loading());
    try {
      const answer = await get("/v1/leaderboard", request, signal);
      if (latest === request) fill(boards, boardsView(answer.boards, request));
    } catch (error) {
      if (error.name !== "AbortError" && latest === request) fill(boards, errorView(error, load));
    }
  }

  const sub =
    "Uses the latest run of each seed, from all users. Optimizers are ranked within one setting: means of different data, budgets or machines cannot be compared.";
  fill(root, pageHead("Leaderboard", { sub }), filtersView(catalog, selected, select), boards);
  await load();
}

/** The selection in the address, else the data set and model of the newest run. */
function initial(query, newest) {
  const { dataset, model } = newest?.spec ?? {};
  return {
    dataset: query.get("dataset") ?? dataset?.name ?? USUAL.dataset,
    model: query.get("model") ?? model?.name ?? USUAL.model,
    metric: query.get("metric") ?? USUAL.metric,
  };
}
