// Data sets: those that kotrain knows, and one's own.

import { get, remove, upload, withQuery } from "../api.js";
import { fill, h } from "../dom.js";
import { ago, bytes, grouped, many, number } from "../format.js";
import { selectField, textField } from "../forms.js";
import { action, bar, empty, facts, section, table, toast } from "../parts.js";

const MOST_CLASSES = 30; // shown
const MOST_ROWS = 8;
const sum = (values) => values.reduce((total, value) => total + value, 0);
const FORMATS = { npz: "npz", csv: "csv", parquet: "parquet", jsonl: "jsonl", zip: "zip" };

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
                  { href: `/data?show=${encodeURIComponent(one.name)}`, onclick: (event) => show(event, one.name) },
                  one.name,
                )
              : one.name,
        },
        { title: "What it is", kind: "wide", cell: (one) => one.title },
        { title: "Classes", cell: (one) => grouped(one.classes) },
        {
          title: "Records",
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
  async function show(event, name) {
    event?.preventDefault();
    keepQuery({ show: name });
    fill(detail, section(name, "Loading \u2026"));
    try {
      draw(await get(`/v1/datasets/${name}`, {}, signal));
      if (event) detail.scrollIntoView({ block: "nearest" });
    } catch (error) {
      if (error.name !== "AbortError") fill(detail, section(name, h("p", { class: "wrong" }, error.message)));
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
          ["from", `a ${one.file_format} file of ${bytes(one.size_bytes)}`],
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
    keepQuery({ show: null });
    fill(detail);
    await load();
  }

  // --- a new one ---
  const name = textField("name", "Name", {
    help: "Lower-case letters, digits, '.', '_' and '-'.",
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
    accept: Object.keys(FORMATS)
      .map((ending) => `.${ending}`)
      .join(","),
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

  function guess() {
    const [stem, ending] = [
      file.files[0]?.name.replace(/\.[^.]*$/, "") ?? "",
      file.files[0]?.name.split(".").at(-1).toLowerCase(),
    ];
    if (FORMATS[ending]) format.set(ending);
    if (!name.value())
      name.set(
        stem
          .toLowerCase()
          .replace(/[^a-z0-9._-]+/g, "-")
          .replace(/^[^a-z0-9]+/, ""),
      );
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
    signal.addEventListener("abort", () => stop.abort());
    const button = event.submitter;
    if (button) button.disabled = true;
    const told = (share) =>
      fill(
        progress,
        h(
          "p",
          {},
          share < 1
            ? `Sending ${chosen.name}: ${Math.round(100 * share)} % of ${bytes(chosen.size)} `
            : "Sent; it is being checked \u2026 ",
        ),
        bar(share < 1 ? share : null, "progress of the upload"),
        share < 1 &&
          h(
            "p",
            {},
            action("Stop", async () => stop.abort(), { kind: "small" }),
          ),
      );
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
      fill(
        progress,
        h(
          "p",
          { role: "status" },
          `${made.name} is ready: ${many(sum(made.train_per_class) + sum(made.test_per_class), "record")}.`,
        ),
      );
      event.target.reset();
      await load();
      await show(null, made.name);
    } catch (error) {
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
      if (button) button.disabled = false;
    }
  }

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
  await load();
  if (query.get("show")) await show(null, query.get("show"));
}
