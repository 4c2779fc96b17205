// The list of jobs: filter, follow, cancel and retry.

import { toastError } from "../../components/toast.js";
import { get } from "../../lib/api.js";
import { fill } from "../../lib/dom.js";
import { follow } from "../../lib/event_stream.js";
import { isFinalJob } from "../../lib/statuses.js";
import { setStyles } from "../../lib/styles.js";
import { throttle } from "../../lib/timing.js";
import { JobList } from "./job_list.js";
import { JobsView } from "./view.js";

const REDRAW_MILLISECONDS = 500;

export async function mount(root, { user, query, keepQuery, signal }) {
  const catalog = await get("/v1/catalog", {}, signal);
  setStyles(catalog);
  const list = new JobList(query, {
    keepQuery,
    signal,
    onChange: () => view.draw(),
    onRestart: () => view.restart(),
    showErrors: (errors) => view.showErrors(errors),
  });
  const view = new JobsView(list, catalog, user);
  fill(root, view.elements());
  await list.load();
  followChanges(list, view, signal);
}

/** Update visible jobs in place by the events of the stream; fetch the list again for other changes. */
function followChanges(list, view, signal) {
  const changed = new Set();
  const redraw = throttle(
    () => {
      for (const id of changed) if (view.rows.find(id)) view.rows.draw(id);
      changed.clear();
    },
    REDRAW_MILLISECONDS,
    signal,
  );

  function update(id, values) {
    const job = view.rows.find(id);
    if (!job || isFinalJob(job)) return;
    Object.assign(job, values);
    changed.add(id);
    redraw();
  }

  function onEvent({ type, data }) {
    if (type === "metric")
      for (const { job, step, total_steps } of data.progress) update(job, { progress: { step, total_steps } });
    else if (type === "status" && data.job) {
      update(data.job, { status: data.status, reason: data.reason });
      list.refresh();
    }
  }

  follow("/v1/events", { signal, onState: view.onState, onOpen: () => list.refresh(), onEvent }).catch(toastError);
}
