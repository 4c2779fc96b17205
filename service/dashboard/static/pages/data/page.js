// Data sets: those that kotrain knows, and one's own.

import { get, remove, upload, withQuery } from "../../lib/api.js";
import { fill, h } from "../../lib/dom.js";
import { ago, bytes, grouped, many, number } from "../../lib/format.js";
import { selectField, textField } from "../../forms/fields.js";
import { action, bar, empty, facts, section, table, toast } from "../../components/parts.js";

const MOST_CLASSES = 30; // shown
const MOST_ROWS = 8;
const LONGEST_NAME = 48;
const USUAL_BATCH = 64;
const sum = (values) => values.reduce((total, value) => total + value, 0);
const FORMATS = ["npz", "csv", "parquet", "jsonl", "zip"];

/** A batch size for so many records, of which a part validates; undefined where the usual one fits. */
const fitting = (records) => (records >= 2 * USUAL_BATCH ? undefined : 2 ** Math.floor(Math.log2(records / 2)));

/** The browser asks whether the page, and with it the upload, is to be left. */
const ask = (event) => event.preventDefault();

export async function mount(root, { user, query, keepQuery, signal }) {
  let datasets = [];
  const list = h("div", { class: "part" });
  const detail = h("div");

  async function load() {
    ({ data: datasets } = await get("/v1/datasets", {}, signal));
    const own = datasets.filter((one) => one.own);
    fill(
      list,
      own.length
        ? dataTable("Your lab's data sets", own)
        : empty(
            "No data sets of your own yet",
            "Upload one below: images, texts or tables become a data set that jobs name.",
          ),
      h("div", { class: "space" }),
      dataTable(
        "Data sets that kotrain knows",
        datasets.filter((one) => !one.own),
      ),
    );
  }

  const dataTable = (caption, rows) =>
    table({
      caption,
      columns: [
        {
          title: "Name",
          kind: "head",
          cell: (one) =>
            one.own
              ? h(
                  "a",
                  { href: `/data?show=${encodeURIComponent(one.name)}`, onclick: (event) => look(event, one.name) },
                  one.name,
                )
              : one.name,
        },
        { title: "What it is", kind: "wide", cell: (one) => one.title },
        { title: "Classes", cell: (one) => grouped(one.classes) },
        {
          title: "Training records",
          cell: (one) => (one.records === null || one.records === undefined ? "" : grouped(one.records)),
        },
        {
          title: "Here",
          kind: "text",
          cell: (one) =>
            one.present ? "yes" : h("span", { class: "why", title: one.fetch }, ["no: ", h("code", {}, one.fetch)]),
        },
        { title: "Owner", kind: "text", cell: (one) => (one.own ? `${one.owner}, ${ago(one.created_at)}` : "") },
      ],
      rows,
    });

  // --- one of them ---
  let shown = null;

  async function look(event, name) {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return; // a tab of its own
    event.preventDefault();
    await show(name);
    detail.scrollIntoView({ block: "nearest" });
  }

  async function show(name) {
    shown = name;
    keepQuery({ show: name });
    fill(detail, section(name, "Loading \u2026"));
    const path = name.split("/").map(encodeURIComponent).join("/");
    try {
      const one = await get(`/v1/datasets/${path}`, {}, signal);
      if (shown === name) draw(one);
    } catch (error) {
      if (error.name === "AbortError" || shown !== name) return;
      fill(detail, section(name, h("p", { class: "wrong" }, error.message)));
    }
  }

  function draw(one) {
    const mayRemove = user.is_admin || user.user === one.owner;
    fill(
      detail,
      section(
        one.name,
        facts([
          ["kind", one.kind],
          [
            "records",
            `${grouped(sum(one.train_per_class))} to learn from, ${grouped(sum(one.test_per_class))} to test`,
          ],
          ["shape", one.shape?.length && one.shape.join(" \u00d7 ")],
          ["file", `${one.file_format}, ${bytes(one.size_bytes)}`],
          ["owner", `${one.owner}, ${ago(one.created_at)}`],
          ["sha256", one.sha256.slice(0, 16)],
        ]),
        (one.warnings ?? []).map((text) => h("p", { class: "warned" }, text)),
        h("h3", {}, "Balance"),
        balance(one),
        h("h3", {}, "A look into it"),
        preview(one),
        h(
          "p",
          { class: "actions" },
          h(
            "a",
            {
              class: "button",
              href: withQuery("/jobs/new", {
                spec: JSON.stringify({
                  dataset: one.name,
                  model: { image: "cnn", text: "textcnn", table: "mlp" }[one.kind],
                  optimizer: "ko",
                  budget: { epochs: 10 },
                  batch_size: fitting(sum(one.train_per_class)),
                }),
              }),
            },
            "Train on it",
          ),
          mayRemove && action("Delete it", () => drop(one), { kind: "danger", confirm: "Really delete?" }),
        ),
      ),
    );
  }

  function balance(one) {
    const classes = one.class_names.map((name, position) => ({
      name,
      train: one.train_per_class[position],
      test: one.test_per_class[position],
    }));
    const most = Math.max(...classes.map((row) => row.train + row.test));
    return table({
      label: "Balance of the classes",
      columns: [
        { title: "Class", kind: "head", cell: (row) => row.name },
        {
          title: "",
          kind: "text",
          cell: (row) => h("span", { class: "cell-bar" }, bar((row.train + row.test) / most, `share of ${row.name}`)),
        },
        { title: "To learn from", cell: (row) => grouped(row.train) },
        { title: "To test", cell: (row) => grouped(row.test) },
      ],
      rows: classes.slice(0, MOST_CLASSES),
      caption:
        classes.length > MOST_CLASSES ? `The first ${MOST_CLASSES} of ${grouped(classes.length)} classes.` : null,
    });
  }

  function preview(one) {
    const records = one.preview ?? [];
    if (one.kind === "image")
      return h(
        "div",
        { class: "previews" },
        records.map((record) =>
          h("figure", {}, h("img", { src: record.image, alt: `an image of class ${record.label}` }), record.label),
        ),
      );
    const values = (records[0]?.values ?? []).map((_, position) => ({
      title: one.columns[position] ?? String(position + 1),
      cell: (record) => number(record.values[position]),
    }));
    return table({
      label: "Some records",
      columns: [
        { title: "Class", kind: "head", cell: (record) => record.label },
        ...(one.kind === "text" ? [{ title: "Text", kind: "wide", cell: (record) => record.text }] : values),
      ],
      rows: records.slice(0, MOST_ROWS),
    });
  }

  async function drop(one) {
    await remove(`/v1/datasets/${one.name}`);
    toast(`${one.name} is deleted.`);
    if (shown === one.name) {
      shown = null;
      keepQuery({ show: null });
      fill(detail);
    }
    await load();
  }

  // --- a new one ---
  const name = textField("name", "Name", {
    help: "What jobs call it: up to 48 lower-case letters, digits, '.', '_' and '-'.",
    placeholder: "flowers",
  });
  const format = selectField("format", "Format", [
    ["npz", "npz: arrays x and y"],
    ["csv", "csv: a column label, numbers or a column text"],
    ["parquet", "parquet: as csv"],
    ["jsonl", "jsonl: text and label in each line"],
    ["zip", "zip: a folder of images for each class"],
  ]);
  const label = textField("label", "Label column", { help: "Of csv and parquet.", placeholder: "label" });
  const size = textField("image_size", "Image size", {
    help: "Side in pixels, where a zip's images differ in size.",
    placeholder: "as they are",
  });
  const file = h("input", {
    type: "file",
    id: "data-file",
    accept: FORMATS.map((ending) => `.${ending}`).join(","),
  });
  const progress = h("div", { "aria-live": "polite" });
  const zone = h(
    "div",
    { class: "drop" },
    h("label", { for: "data-file" }, "Choose a file, or drop one here"),
    h("p", {}, file),
  );
  for (const [type, isOver] of [
    ["dragover", true],
    ["dragleave", false],
    ["drop", false],
  ]) {
    zone.addEventListener(type, (event) => {
      event.preventDefault();
      zone.classList.toggle("over", isOver);
      if (type === "drop" && event.dataTransfer.files.length) {
        file.files = event.dataTransfer.files;
        guess();
      }
    });
  }
  file.addEventListener("change", guess);

  let guessed = "";

  /** Format and name after the file's, unless the reader has chosen another name. */
  function guess() {
    const chosen = file.files[0]?.name ?? "";
    const ending = chosen.split(".").at(-1).toLowerCase();
    if (FORMATS.includes(ending)) format.set(ending);
    if ((name.value() ?? "") !== guessed) return;
    const plain = chosen
      .replace(/\.[^.]*$/, "")
      .toLowerCase()
      .replace(/[^a-z0-9._-]+/g, "-")
      .replace(/^[^a-z0-9]+/, "");
    guessed = plain.slice(0, LONGEST_NAME);
    name.set(guessed);
  }

  async function send(event) {
    event.preventDefault();
    for (const one of [name, format, label, size]) one.refuse(null);
    const chosen = file.files[0];
    if (!chosen) {
      fill(progress, h("p", { class: "wrong" }, "Choose a file first."));
      file.focus();
      return;
    }
    const stop = new AbortController();
    addEventListener("beforeunload", ask);
    const button = event.submitter;
    if (button) button.disabled = true;
    const text = h("p");
    const gauge = h("div");
    const stopping = h(
      "p",
      {},
      action("Stop", async () => stop.abort(), { kind: "small" }), // made once: a click needs it to stay
    );
    fill(progress, text, gauge, stopping);
    const told = (share) => {
      fill(
        text,
        share < 1
          ? `Sending ${chosen.name}: ${Math.round(100 * share)} % of ${bytes(chosen.size)}`
          : "Sent; it is being checked \u2026",
      );
      fill(gauge, bar(share < 1 ? share : null, "progress of the upload"));
      stopping.hidden = share >= 1;
    };
    told(0);
    try {
      const made = await upload(
        withQuery("/v1/datasets", {
          name: name.value(),
          format: format.value(),
          label: label.value(),
          image_size: size.value(),
        }),
        chosen,
        { onProgress: told, signal: stop.signal },
      );
      const ready = `${made.name} is ready: ${many(sum(made.train_per_class) + sum(made.test_per_class), "record")}.`;
      if (signal.aborted) {
        toast(ready);
        return;
      }
      fill(progress, h("p", { role: "status" }, ready));
      event.target.reset();
      guessed = "";
      await load();
      await show(made.name);
    } catch (error) {
      if (signal.aborted) {
        toast(`${chosen.name} was not taken: ${error.message}`, "error");
        return;
      }
      if (error.name === "AbortError") {
        fill(progress, h("p", {}, "Stopped; nothing was kept."));
        return;
      }
      const fields = { name, format, label, image_size: size };
      const fieldOf = (one) => fields[one.pointer.replace(/^\//, "")];
      const left = (error.fields ?? []).filter((one) => !fieldOf(one));
      for (const one of error.fields ?? []) fieldOf(one)?.refuse(one.detail);
      fill(
        progress,
        h(
          "p",
          { class: "wrong", role: "alert" },
          left.length
            ? left.map((one) => one.detail).join("; ")
            : error.fields?.length
              ? "Not taken: see the field above."
              : error.message,
        ),
      );
    } finally {
      removeEventListener("beforeunload", ask);
      if (button) button.disabled = false;
    }
  }

  await load(); // before the rest: a list that comes later would move the form under the reader's hand
  fill(
    root,
    h(
      "div",
      { class: "head" },
      h("h1", {}, "Data sets"),
      h(
        "p",
        { class: "sub" },
        "What jobs can be trained on. Yours are split once into a part to learn from and one to test, for everybody the same.",
      ),
    ),
    list,
    detail,
    section(
      "Your own data",
      h(
        "form",
        { onsubmit: send, novalidate: true },
        h(
          "div",
          { class: "choice" },
          zone,
          h("div", { class: "fields" }, name.element, format.element, label.element, size.element),
          h("p", { class: "actions" }, h("button", { class: "primary", type: "submit" }, "Upload")),
          progress,
        ),
      ),
    ),
  );
  if (query.get("show")) await show(query.get("show"));
}
