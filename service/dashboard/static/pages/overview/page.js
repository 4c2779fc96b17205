// The overview: running and queued jobs, workers, and the latest verdicts.

import { liveIndicator } from "../../components/status.js";
import { toastError } from "../../components/toast.js";
import { get } from "../../lib/api.js";
import { fill } from "../../lib/dom.js";
import { follow } from "../../lib/event_stream.js";
import { refresher } from "../../lib/refresher.js";
import { loadStyles } from "../../lib/styles.js";
import { OverviewView } from "./view.js";

const REFRESH_MILLISECONDS = 10_000; // because heartbeats of workers do not emit events

export async function mount(root, { signal }) {
  await loadStyles(signal);
  const { element: live, onState } = liveIndicator();
  const view = new OverviewView(live);
  let state;

  const fetchState = async () => {
    const [overview, { workers }, { data: jobs }] = await Promise.all([
      get("/v1/overview", {}, signal),
      get("/v1/workers", {}, signal),
      get("/v1/jobs", { limit: 8 }, signal),
    ]);
    return { overview, workers, jobs };
  };

  function show(answer) {
    state = answer;
    view.draw(state);
  }

  function onEvent({ type, data }) {
    if (type === "status") refresh();
    else if (type === "metric") {
      for (const progress of data.progress) updateProgress(state.workers, progress);
      view.drawWorkers(state.workers);
    }
  }

  fill(root, view.elements());
  show(await fetchState());
  const refresh = refresher(fetchState, show, { milliseconds: 2000, signal, onError: toastError });
  const timer = setInterval(() => document.hidden || refresh(), REFRESH_MILLISECONDS);
  signal.addEventListener("abort", () => clearInterval(timer));
  follow("/v1/events", { signal, onState, onOpen: refresh, onEvent }).catch(toastError);
}

function updateProgress(workers, { job, step, total_steps }) {
  const running = workers.flatMap((worker) => worker.running).find((entry) => entry.job === job);
  if (running) Object.assign(running, { step, total_steps });
}
