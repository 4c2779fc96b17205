// The figures of a job or a comparison as files.

import { download, get, withQuery } from "../lib/api.js";
import { h } from "../lib/dom.js";
import { actionButton } from "./buttons.js";
import { folded } from "./layout.js";
import { emptyState, loaded } from "./states.js";
import { table } from "./table.js";

const FIRST = 12; // figures shown before the rest is unfolded

/** The list of figures; `path` is the path of the job or comparison in the API, `fileName` the prefix of file names. */
export const figureFiles = (path, fileName, signal) =>
  loaded(get(`${path}/plots`, {}, signal), ({ plots }) => {
    if (!plots.length) return emptyState("No figures yet");
    const rest = plots.slice(FIRST);
    return h(
      "div",
      {},
      list(plots.slice(0, FIRST), path, fileName),
      rest.length > 0 && folded(`${rest.length} more`, list(rest, path, fileName)),
    );
  });

const list = (plots, path, fileName) =>
  table({
    label: "Figures",
    columns: [
      { title: "Figure", kind: "head", cell: (plot) => plot.title },
      plots.some((plot) => plot.task) && { title: "Task", kind: "text", cell: (plot) => plot.task ?? "" },
      {
        title: "",
        cell: (plot) =>
          h(
            "span",
            { class: "chips" },
            ["svg", "png"].map((format) => saveButton(plot, format, path, fileName)),
          ),
      },
    ],
    rows: plots,
  });

const saveButton = (plot, format, path, fileName) =>
  actionButton(
    format.toUpperCase(),
    () =>
      download(
        withQuery(`${path}/plots/${plot.name}.${format}`, { task: plot.task }),
        `${fileName}-${plot.name.replaceAll("/", "-")}.${format}`,
      ),
    { kind: "small", label: `${plot.title} as ${format.toUpperCase()}` },
  );
