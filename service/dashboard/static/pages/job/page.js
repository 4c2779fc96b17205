// The page of a job: live curves, spec, log, environment and files.

import { JobFigures } from "../../charts/job_figures.js";
import { Curves } from "../../charts/curves.js";
import { copyable } from "../../components/buttons.js";
import { figureFiles } from "../../components/figure_files.js";
import { code, section } from "../../components/layout.js";
import { tabs } from "../../components/tabs.js";
import { toastError } from "../../components/toast.js";
import { get } from "../../lib/api.js";
import { fill, h } from "../../lib/dom.js";
import { follow } from "../../lib/event_stream.js";
import { shortId } from "../../lib/format.js";
import { refresher } from "../../lib/refresher.js";
import { isFinalJob } from "../../lib/statuses.js";
import { loadStyles, styleOf } from "../../lib/styles.js";
import { throttle } from "../../lib/timing.js";
import { JobHead } from "./head.js";
import { environmentView, filesView, logItems, numbersView } from "./view.js";

const HISTORY_POINTS = 2000; // of each curve, before the live ones

export async function mount(root, { id, go, user, query, keepQuery, setTitle, signal }) {
  const fetchJob = () => get(`/v1/jobs/${id}`, {}, signal);
  const [job] = await Promise.all([fetchJob(), loadStyles(signal)]);
  setTitle(`${job.spec.optimizer.name} on ${job.spec.dataset.name}`);
  const history = new History();
  const onChange = (changed) => {
    view.show(changed);
    refresh();
  };
  const view = new JobView(job, history, { go, user, query, keepQuery, signal, onChange });
  fill(root, view.elements());
  view.show(job);
  const refresh = refresher(fetchJob, (changed) => view.show(changed), {
    milliseconds: 300,
    signal,
    onError: toastError,
  });
  const redraw = throttle(() => view.redraw(), 1000, signal);
  follow(`/v1/jobs/${id}/events?max_points=${HISTORY_POINTS}`, {
    signal,
    onState: view.onState,
    onEvent({ type, data }) {
      history.add(type, data);
      if (type === "metric") view.job.progress = { step: data.step, total_steps: data.total_steps };
      if (type === "log" || type === "status") view.drawLog();
      if (type === "status" || type === "end") refresh();
      if (type !== "end") redraw();
    },
  }).catch(toastError);
}

/** The curves and the events of a job, as its stream delivers them. */
class History {
  curves = new Curves();
  events = [];
  #latest = -1; // sequence number of the last event

  add(type, data) {
    if (type === "metric") this.curves.add(data.points);
    else if (type === "log" || type === "status") this.#addEvent(type, data);
  }

  #addEvent(type, data) {
    if (data.seq <= this.#latest) this.#clear();
    this.#latest = data.seq;
    if (data.rewind_to !== undefined && data.rewind_to !== null) this.curves.rewind(data.rewind_to);
    this.events.push({ ...data, isNote: type === "log" });
  }

  /** Drop everything: after a restore of the database, the stream repeats its events, which may differ. */
  #clear() {
    this.curves.rewind(0);
    this.events.length = 0;
  }
}

class JobView {
  #numbers = h("div");
  #log = h("ol", { class: "list" });
  #environment = h("div");

  constructor(job, history, { go, user, query, keepQuery, signal, onChange }) {
    Object.assign(this, { job, history, signal });
    this.head = new JobHead(job.id, { go, user, onChange });
    this.onState = this.head.onState;
    const { curves } = history;
    this.figures = new JobFigures({ curves, style: styleOf(job.spec.optimizer.name), query, keepQuery, signal });
    this.tabs = this.#tabs(query.get("tab"), keepQuery);
  }

  elements() {
    return [this.head.element, this.head.editor.element, this.#numbers, this.tabs];
  }

  #tabs(selected, keepQuery) {
    const curves = () => {
      setTimeout(() => this.figures.draw(this.job)); // once they are on the page
      return this.figures.element;
    };
    const log = () => {
      fill(this.#log, logItems(this.history.events));
      return this.#log;
    };
    return tabs(
      "Views of the job",
      [
        { name: "curves", title: "Curves", content: curves },
        { name: "spec", title: "Spec", content: () => this.#spec() },
        { name: "log", title: "Log", content: log },
        { name: "environment", title: "Environment", content: () => this.#environment },
        { name: "files", title: "Files", content: () => this.#files() },
      ],
      selected,
      (name) => keepQuery({ tab: name === "curves" ? null : name }),
    );
  }

  #spec() {
    const { id, spec, tags } = this.job;
    return [h("p", {}, copyable(id)), code(Object.keys(tags).length ? { ...spec, tags } : spec)];
  }

  #files() {
    const { id } = this.job;
    return h(
      "div",
      { class: "page" },
      section("Files", filesView(id, this.signal)),
      section("Figure files", figureFiles(`/v1/jobs/${id}`, shortId(id), this.signal)),
    );
  }

  /** Show the job as the API has returned it. */
  show(job) {
    this.job = job;
    this.#drawHead();
    this.figures.draw(job);
    fill(this.#environment, environmentView(job));
  }

  /** Show what the stream has delivered. */
  redraw() {
    this.figures.draw(this.job);
    if (!isFinalJob(this.job)) this.#drawHead();
  }

  drawLog() {
    if (this.#log.isConnected) fill(this.#log, logItems(this.history.events));
  }

  #drawHead() {
    this.head.draw(this.job);
    fill(this.#numbers, numbersView(this.job, this.history.curves));
  }
}
