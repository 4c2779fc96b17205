// The list of uploaded code, and a version in detail.

import { actionButton } from "../../components/buttons.js";
import { facts, folded, linkButton, section } from "../../components/layout.js";
import { emptyState, note } from "../../components/states.js";
import { statusChip } from "../../components/status.js";
import { table } from "../../components/table.js";
import { withQuery } from "../../lib/api.js";
import { fill, h } from "../../lib/dom.js";
import { ago } from "../../lib/format.js";
import { highlighted } from "./highlight.js";

/** All versions, newest first; `onShow` gets the click event and the name of one. */
export function codeList(versions, onShow) {
  if (!versions.length) {
    return emptyState("No uploaded code yet", "Upload a Python file with an optimizer below.");
  }
  const link = ({ name }) =>
    h("a", { href: `/code?show=${encodeURIComponent(name)}`, onclick: (event) => onShow(event, name) }, name);
  return table({
    label: "Uploaded code",
    columns: [
      { title: "Name", kind: "head", cell: link },
      { title: "Description", kind: "wide", cell: (version) => version.title },
      { title: "Test", kind: "text", cell: ({ outcome }) => (outcome ? outcomeChip(outcome) : "not run yet") },
      { title: "Uploaded", kind: "text", cell: (version) => ago(version.created_at) },
    ],
    rows: versions,
  });
}

/**
 * A version with the element of its test's results. `onDelete` is false for users who may not delete it, `onCompare`
 * without an older version.
 */
export function codeView(code, checks, { onDelete, onCompare }) {
  const diff = h("div");
  const name = code.name.split("@")[0];
  const trainOnIt = { optimizer: code.name };
  const compareIt = { optimizers: [{ name: code.name, space: code.space }, { name: "adam", space: ADAM_SPACE }], tuning: { trials: 6 } };
  return section(
    code.name,
    facts([
      ["description", code.title],
      ["file", code.file],
      ["owner", `${code.owner}, ${ago(code.created_at)}`],
      ["SHA-256", code.sha256.slice(0, 16)],
      ["needs", code.needs.join(", ")],
      ["name of the newest version", name],
    ]),
    h("h3", {}, "Conformance test"),
    checks,
    h("h3", {}, "Parameters"),
    parameterTable(code),
    folded("Source", highlighted(code.source)),
    diff,
    h(
      "p",
      { class: "actions" },
      linkButton("Train with it", withQuery("/jobs/new", { spec: JSON.stringify(trainOnIt) })),
      linkButton("Compare it", withQuery("/comparisons/new", { spec: JSON.stringify(compareIt) })),
      onCompare && actionButton("Show changes", async () => fill(diff, diffView(await onCompare()))),
      onDelete && actionButton("Delete", onDelete, { kind: "danger", confirm: "Click again to delete" }),
    ),
  );
}

const ADAM_SPACE = { lr: { log_uniform: [0.00003, 0.03] } };
const CHIPS = { pass: "succeeded", warning: "queued", fail: "failed" };

const outcomeChip = (outcome) => statusChip(CHIPS[outcome], undefined, outcome);

/** The results of the conformance test; null until it has run. */
export function checksTable(checks) {
  if (checks === null) return note("A worker runs it after the upload, which takes some seconds.");
  return table({
    label: "Conformance test",
    columns: [
      { title: "Check", kind: "head", cell: (check) => check.name.replaceAll("_", " ") },
      { title: "Outcome", kind: "text", cell: (check) => outcomeChip(check.outcome) },
      { title: "", kind: "wide", cell: (check) => check.text },
    ],
    rows: checks,
  });
}

function parameterTable({ params, space }) {
  const tuned = ([name]) => (space[name] ? rangeText(space[name]) : "");
  return table({
    label: "Parameters",
    columns: [
      { title: "Parameter", kind: "head", cell: ([name]) => name },
      { title: "Default", kind: "text", cell: ([, schema]) => JSON.stringify(schema.default) },
      { title: "Default search space", kind: "text", cell: tuned },
    ],
    rows: Object.entries(params.properties ?? {}),
  });
}

function rangeText(range) {
  const [[form, ends]] = Object.entries(range);
  return `${form.replace("_", "-")}: ${ends.join(form === "choice" ? ", " : " to ")}`;
}

const diffView = (text) => [h("h3", {}, "Changes"), h("pre", { class: "code" }, text || "The files are equal.")];
