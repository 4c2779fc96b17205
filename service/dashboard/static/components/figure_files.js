// The figures of a job or a comparison as files, for papers and chat.

import { download, get, withQuery } from "../lib/api.js";
import { fill, h } from "../lib/dom.js";
import { action, empty, table } from "./parts.js";

const FIRST = 12; // shown before one asks for all

/** A list of them; `path` is the job's or comparison's address in the API, `name` begins the names of the files. */
export function pictures(path, name, signal) {
  const box = h("div", {}, "Loading \u2026");
  const save = (plot, ending) =>
    action(
      ending.toUpperCase(),
      () =>
        download(
          withQuery(`${path}/plots/${plot.name}.${ending}`, { task: plot.task }),
          `${name}-${plot.name.replaceAll("/", "-")}.${ending}`,
        ),
      {
        kind: "small",
        label: `${plot.title} as ${ending.toUpperCase()}`,
      },
    );
  const list = (plots) =>
    table({
      label: "Pictures",
      columns: [
        { title: "Picture", kind: "head", cell: (plot) => plot.title },
        plots.some((plot) => plot.task) && { title: "Task", kind: "text", cell: (plot) => plot.task ?? "" },
        { title: "", cell: (plot) => h("span", { class: "chips" }, save(plot, "svg"), save(plot, "png")) },
      ].filter(Boolean),
      rows: plots,
    });
  get(`${path}/plots`, {}, signal)
    .then(({ plots }) =>
      fill(
        box,
        plots.length ? list(plots.slice(0, FIRST)) : empty("No pictures yet"),
        plots.length > FIRST &&
          h("details", {}, h("summary", {}, `${plots.length - FIRST} more`), list(plots.slice(FIRST))),
      ),
    )
    .catch((error) => error.name === "AbortError" || fill(box, h("p", { class: "wrong" }, error.message)));
  return box;
}
