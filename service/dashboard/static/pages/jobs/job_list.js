// The list of jobs: its filters, its order, and the rows last fetched.

import { get } from "../../lib/api.js";
import { firstRows } from "../../lib/pagination.js";
import { RETRY_MILLISECONDS } from "../../lib/refresher.js";
import { throttle } from "../../lib/timing.js";

const PAGE = 100; // rows
const LONG = 500; // rows above which a list is refreshed less often
const LONG_MILLISECONDS = 10_000; // between two refreshes of a long list
const INVALID = 422;

export const FILTERS = ["status", "dataset", "model", "optimizer", "user", "tag", "search", "comparison", "archived"];

/** Every answer contains the whole visible list, so that a delayed answer cannot undo a later one. */
export class JobList {
  rows = [];
  next = null; // cursor of the rows after these
  counts = null; // jobs by status, with all other filters
  error = null; // message of the last failed request
  #wanted = PAGE;
  #isInvalid = false; // whether the filters are invalid, so that further requests would fail
  #requests = 0;
  #oldest = 0; // number of the oldest request whose answer is still accepted

  /**
   * @param {URLSearchParams} query query of the page's address
   * @param {object} options
   * @param {() => void} options.onChange called after each request
   * @param {() => void} options.onRestart called when the filters or the order change
   * @param {(errors: object[]) => boolean} options.showErrors shows errors of filters; returns whether one was shown
   */
  constructor(query, { keepQuery, signal, onChange, onRestart, showErrors }) {
    Object.assign(this, { keepQuery, signal, onChange, onRestart, showErrors });
    this.filter = Object.fromEntries(FILTERS.map((name) => [name, query.get(name) ?? ""]));
    this.order = query.get("sort") ?? "newest";
    const reload = () => this.#isInvalid || this.load();
    this.soon = throttle(reload, RETRY_MILLISECONDS, signal);
    this.later = throttle(reload, LONG_MILLISECONDS, signal);
  }

  get isFiltered() {
    return FILTERS.some((name) => this.filter[name]);
  }

  /** Change filters by name. */
  setFilters(values) {
    Object.assign(this.filter, values);
    this.keepQuery(values);
    return this.#restart();
  }

  reverse() {
    this.order = this.order === "newest" ? "oldest" : "newest";
    this.keepQuery({ sort: this.order === "newest" ? null : this.order });
    return this.#restart();
  }

  #restart() {
    this.#wanted = PAGE;
    this.#oldest = this.#requests + 1;
    this.onRestart();
    return this.load();
  }

  more() {
    this.#wanted = this.rows.length + PAGE;
    return this.load();
  }

  /** Schedule a refresh of the list after a change. */
  refresh() {
    if (this.rows.length > LONG) this.later();
    else this.soon();
  }

  async load() {
    const request = (this.#requests += 1);
    try {
      const list = await this.#fetch();
      if (request < this.#oldest) return;
      this.#oldest = request;
      Object.assign(this, list, { error: null });
      this.#isInvalid = false;
    } catch (error) {
      if (error.name === "AbortError" || request < this.#oldest) return;
      if (error.isTemporary) setTimeout(this.soon, RETRY_MILLISECONDS);
      if (error.isTemporary && this.rows.length) return;
      this.#isInvalid = error.status === INVALID;
      const isShown = this.showErrors(error.fields ?? []);
      // If the error is shown at its filter, the previous list stays.
      this.error = this.#isInvalid && isShown && this.counts ? null : error.message;
    }
    this.onChange();
  }

  async #fetch() {
    const { filter, order, signal } = this;
    const [{ rows, next }, { counts }] = await Promise.all([
      firstRows("/v1/jobs", { ...filter, sort: order === "newest" ? "" : order }, this.#wanted, signal),
      get("/v1/jobs/counts", { ...filter, status: "" }, signal),
    ]);
    return { rows, next, counts };
  }
}
