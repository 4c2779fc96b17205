// What a job's page is made of: numbers, log, environment, files.

import { download, get } from "../../lib/api.js";
import { fill, h } from "../../lib/dom.js";
import { ago, bytes, duration, measured, moment, number, shortId, words } from "../../lib/format.js";
import { action, bar, chip, empty, facts, table } from "../../components/parts.js";

const FINAL = ["succeeded", "failed", "cancelled"];

export const isFinal = (job) => FINAL.includes(job.status);

/** How far a job is, or what came of it, in large numbers. */
export function numbers(job, curves) {
  const summary = job.summary;
  const { step, total_steps: total } = job.progress;
  const found = [];
  const add = (name, value, more) =>
    value !== null &&
    value !== undefined &&
    found.push(h("div", {}, h("dt", {}, name), h("dd", {}, value, more && h("small", {}, ` ${more}`))));
  if (!isFinal(job)) {
    found.push(
      h(
        "div",
        {},
        h("dt", {}, job.status === "queued" ? "Waiting" : "Progress"),
        h(
          "dd",
          {},
          total ? `${Math.floor((100 * step) / total)} %` : number(step),
          h("small", {}, total ? ` ${number(step)} of ${number(total)} steps` : " steps"),
          bar(total ? step / total : job.status === "queued" ? 0 : null, "progress of the run"),
        ),
      ),
    );
    for (const name of ["train_loss", "val_accuracy", "val_loss"])
      if (curves.last(name) !== null) add(words(name), measured(curves.last(name), name));
  } else if (summary) {
    for (const name of ["test_accuracy", "val_accuracy", "test_loss", "train_loss"])
      if (summary.metrics[name] !== undefined) add(words(name), measured(summary.metrics[name], name));
    add("Training time", duration(summary.train_seconds), `${duration(summary.total_seconds)} in all`);
    add("Steps", number(summary.steps), `${number(summary.epochs)} epochs`);
    add(
      "Target reached",
      summary.target && number(summary.target.step),
      summary.target && `steps, ${duration(summary.target.wall_seconds)}`,
    );
  }
  return found.length ? h("dl", { class: "numbers" }, found) : null;
}

/** What happened to a job, as the items of a list. */
export function logItems(events) {
  if (!events.length) return h("li", {}, "Nothing yet.");
  return events.map((event) =>
    h(
      "li",
      {},
      h(
        "div",
        { class: "row" },
        event.isNote ? h("span", { class: "chip" }, "note") : chip(event.status),
        event.reason && event.reason !== "completed" && h("span", { class: "why" }, event.reason.replaceAll("_", " ")),
        h("span", { class: "space" }),
        h("span", { class: "note" }, `attempt ${event.attempt}`),
        h("time", { class: "note", datetime: event.at }, moment(event.at)),
      ),
      event.message && h("pre", { class: "code" }, event.message.trim()),
    ),
  );
}

/** Versions, device and data of a run that has ended; words before and where none were recorded. */
export function environment(job) {
  const recorded = Object.entries(job.environment ?? {});
  if (!recorded.length)
    return isFinal(job)
      ? empty("Not known", "It ended before a worker had recorded versions, device and data.")
      : empty(
          "Not known yet",
          `Versions, device and data are recorded when it ends.${job.worker ? ` It runs on ${job.worker}.` : ""}`,
        );
  const memory = job.summary?.memory;
  return facts([
    ...recorded.map(([name, value]) => [words(name), value === null ? null : String(value)]),
    ["worker", job.worker],
    ["parameters", job.summary && number(job.summary.parameters)],
    ["peak memory", memory && bytes(memory.peak_bytes)],
    ["optimizer state", memory && bytes(memory.optimizer_state_bytes)],
  ]);
}

/** Its files, to be downloaded. */
export function files(id, signal) {
  const box = h("div", {}, "Loading \u2026");
  get(`/v1/jobs/${id}/artifacts`, {}, signal)
    .then(({ artifacts }) =>
      fill(
        box,
        artifacts.length
          ? table({
              label: "Files",
              columns: [
                { title: "File", kind: "head", cell: (file) => file.name },
                { title: "Size", cell: (file) => (file.size_bytes === null ? "" : bytes(file.size_bytes)) },
                { title: "Made", cell: (file) => (file.created_at ? ago(file.created_at) : "") },
                {
                  title: "",
                  cell: (file) =>
                    action(
                      "Download",
                      () =>
                        download(
                          `/v1/jobs/${id}/artifacts/${encodeURIComponent(file.name)}`,
                          `${shortId(id)}-${file.name}`,
                        ),
                      { kind: "small", label: `Download ${file.name}` },
                    ),
                },
              ],
              rows: artifacts,
            })
          : empty("No files yet"),
      ),
    )
    .catch((error) => error.name === "AbortError" || fill(box, h("p", { class: "wrong" }, error.message)));
  return box;
}
