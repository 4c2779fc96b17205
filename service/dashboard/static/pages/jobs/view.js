// The elements of the list of jobs.

import { actionButton } from "../../components/buttons.js";
import { actions, linkButton, pageHead, spacer } from "../../components/layout.js";
import { emptyState } from "../../components/states.js";
import { liveIndicator } from "../../components/status.js";
import { table } from "../../components/table.js";
import { fill, h, patch } from "../../lib/dom.js";
import { counted, integer } from "../../lib/format.js";
import { JOB_STATUSES } from "../../lib/statuses.js";
import { FilterBar } from "./filters.js";
import { FILTERS } from "./job_list.js";
import { JobRows } from "./rows.js";
import { Selection } from "./selection.js";

export class JobsView {
  #statuses = h("div", { class: "picks", role: "group", "aria-label": "Status" });
  #activeFilters = h("div", { class: "picks" });
  #frame = h("div", { class: "part" });
  #count = h("span", { class: "note" });

  constructor(list, catalog, user) {
    Object.assign(this, { list, user });
    const live = liveIndicator();
    this.live = live.element;
    this.onState = live.onState;
    this.rows = new JobRows((id, isSelected) => this.selection.select(id, isSelected));
    this.selection = new Selection({
      onAction: () => list.load(),
      onChange: () => this.rows.mark(this.selection.ids),
    });
    this.filters = new FilterBar(list.filter, catalog, (name, value) => this.#filter(name, value));
    this.moreButton = actionButton("Show more", () => list.more());
  }

  elements() {
    this.archivedButton = h("button", { type: "button", onclick: () => this.#toggleArchived() });
    const ownButton = h("button", { type: "button", onclick: () => this.#toggleOwn() }, "Only my jobs");
    return [
      pageHead("Jobs", {}, this.live, spacer(), this.archivedButton, ownButton),
      this.filters.element,
      this.#statuses,
      this.#activeFilters,
      this.selection.element,
      this.#frame,
      actions(this.moreButton, this.#count),
    ];
  }

  // --- filters ---

  #filter(name, value) {
    if (name === "tag" && value && !value.includes(":")) {
      this.filters.setError("tag", "KEY:VALUE"); // incomplete: the user is still typing
      return undefined;
    }
    return this.#setFilters({ [name]: value });
  }

  #setFilters(values) {
    for (const name of Object.keys(values)) this.filters.setError(name, "");
    return this.list.setFilters(values);
  }

  #clear() {
    const none = Object.fromEntries(FILTERS.map((name) => [name, ""]));
    this.filters.show(none);
    return this.#setFilters(none);
  }

  #toggleOwn() {
    const user = this.list.filter.user === this.user.user ? "" : this.user.user;
    this.filters.show({ user });
    return this.#setFilters({ user });
  }

  #toggleArchived() {
    return this.#setFilters({ archived: this.list.filter.archived ? "" : "true" });
  }

  showErrors(errors) {
    return this.filters.showErrors(errors);
  }

  // --- drawing ---

  /** Deselect all jobs, because another list was requested. */
  restart() {
    this.selection.selectAll(false);
  }

  draw() {
    const { list } = this;
    this.archivedButton.textContent = list.filter.archived ? "Hide archived" : "Show archived";
    this.#drawStatuses();
    this.#drawActiveFilters();
    this.#drawList();
    const jobs = list.error === null ? list.rows : [];
    this.selection.show(jobs.map((job) => job.id));
    this.moreButton.hidden = !jobs.length || !list.next;
    this.#count.textContent = jobs.length ? `${counted(jobs.length, "job")} shown` : "";
  }

  #drawStatuses() {
    const { counts, filter } = this.list;
    const total = counts && JOB_STATUSES.reduce((sum, status) => sum + (counts[status] ?? 0), 0);
    const unknown = filter.status && !JOB_STATUSES.includes(filter.status) ? [filter.status] : []; // from the address
    const button = (value, title, count) =>
      h(
        "button",
        {
          type: "button",
          "aria-pressed": filter.status === value,
          onclick: () => this.#setFilters({ status: value }),
        },
        title,
        count !== null && count !== undefined && ` ${integer(count)}`,
      );
    patch(
      this.#statuses,
      button("", "all", total),
      [...JOB_STATUSES, ...unknown].map((status) => button(status, status, counts?.[status])),
    );
  }

  /** The filters without a field, and the button that clears all filters. */
  #drawActiveFilters() {
    const { comparison } = this.list.filter;
    this.#activeFilters.hidden = !this.list.isFiltered;
    patch(
      this.#activeFilters,
      comparison && [
        h("a", { href: `/comparisons/${encodeURIComponent(comparison)}` }, "Runs of one comparison"),
        h(
          "button",
          {
            type: "button",
            "aria-label": "Show jobs of all comparisons",
            onclick: () => this.#setFilters({ comparison: "" }),
          },
          "\u2715",
        ),
      ],
      h("button", { type: "button", onclick: () => this.#clear() }, "Clear all filters"),
    );
  }

  #drawList() {
    const { list } = this;
    if (list.error !== null) fill(this.#frame, failure(list));
    else if (!list.rows.length) fill(this.#frame, list.isFiltered ? noMatches() : noJobs());
    else this.#drawTable();
  }

  /** Redraw the head around the body, whose rows change in place. */
  #drawTable() {
    this.rows.show(this.list.rows);
    const element = table({
      label: "Jobs",
      columns: this.rows.columns,
      rows: [],
      sorted: { by: "time", descending: this.list.order === "newest" },
      onSort: () => this.list.reverse(),
    });
    element.querySelector("tbody").remove();
    if (this.#frame.contains(this.rows.body)) {
      patch(this.#frame.querySelector("thead"), ...element.querySelector("thead").childNodes);
      return;
    }
    element.querySelector("table").append(this.rows.body);
    fill(this.#frame, element);
  }
}

const failure = (list) =>
  emptyState(
    "The list could not be loaded",
    list.error,
    h("button", { type: "button", onclick: () => list.load() }, "Retry"),
  );

const noJobs = () =>
  emptyState("No jobs yet", "Submit a job and watch its curves live.", linkButton("New job", "/jobs/new", "primary"));

const noMatches = () => emptyState("No matching jobs", "Remove a filter to see more.");
