// The form that uploads a data set, and the progress of the upload.

import { actionButton } from "../../components/buttons.js";
import { errorText } from "../../components/states.js";
import { progressBar } from "../../components/status.js";
import { toast } from "../../components/toast.js";
import { selectField, textField } from "../../forms/field.js";
import { fieldGrid, stack } from "../../forms/layout.js";
import { upload, withQuery } from "../../lib/api.js";
import { fill, h } from "../../lib/dom.js";
import { bytes, counted, percent } from "../../lib/format.js";
import { sum } from "./dataset_view.js";

const MAX_NAME = 48; // characters
const FORMATS = [
  ["npz", "npz: arrays x and y"],
  ["csv", "csv: a label column, and numbers or a text column"],
  ["parquet", "parquet: columns as in csv"],
  ["jsonl", "jsonl: text and label on each line"],
  ["zip", "zip: one folder of images per class"],
];
const ENDINGS = FORMATS.map(([ending]) => ending);

/** Make the browser ask before the page, and with it the upload, is closed. */
const confirmClosing = (event) => event.preventDefault();

/** A valid name made from that of a file. */
const nameFrom = (fileName) =>
  fileName
    .replace(/\.[^.]*$/, "")
    .toLowerCase()
    .replace(/[^a-z0-9._-]+/g, "-")
    .replace(/^[^a-z0-9]+/, "")
    .slice(0, MAX_NAME);

const LISTS = new Set(["drop", "keep"]);
const listed = (text) =>
  (text ?? "")
    .split(",")
    .map((name) => name.trim())
    .filter(Boolean);

const makeFields = () => ({
  name: textField("name", {
    help: `Jobs refer to the data set as images/NAME, tables/NAME or texts/NAME. Up to ${MAX_NAME} lower-case letters, digits, '.', '_' and '-'.`,
    placeholder: "flowers",
  }),
  format: selectField("format", FORMATS),
  label: textField("label", { title: "Label column", help: "For csv and parquet.", placeholder: "label" }),
  drop: textField("drop", { title: "Columns to leave out", help: "Of csv and parquet, separated by commas." }),
  keep: textField("keep", {
    title: "Columns to keep",
    help: "Columns of numbers that look like identifiers of the rows, separated by commas.",
  }),
  image_size: textField("image_size", {
    help: "Side length in pixels, for a zip with images of different sizes.",
    placeholder: "original",
  }),
});

export class UploadForm {
  #fields = makeFields();
  #guessedName = "";
  #progress = h("div", { "aria-live": "polite" });

  /** `onCreated` gets the new data set, unless the page has been left: `signal` is aborted then. */
  constructor(signal, onCreated) {
    Object.assign(this, { signal, onCreated });
    this.file = h("input", {
      type: "file",
      id: "data-file",
      accept: ENDINGS.map((ending) => `.${ending}`).join(","),
      onchange: () => this.#guess(),
    });
    this.button = h("button", { class: "primary", type: "submit" }, "Upload");
    this.element = h(
      "form",
      { onsubmit: (event) => this.#submit(event), novalidate: true },
      stack(
        dropZone(this.file, () => this.#guess()),
        fieldGrid(Object.values(this.#fields)),
        h("p", { class: "actions" }, this.button),
        this.#progress,
      ),
    );
  }

  /** Set format and name from those of the file, unless the user has typed a name. */
  #guess() {
    const { name, format } = this.#fields;
    const fileName = this.file.files[0]?.name ?? "";
    const ending = fileName.split(".").at(-1).toLowerCase();
    if (ENDINGS.includes(ending)) format.set(ending);
    if ((name.value() ?? "") !== this.#guessedName) return;
    this.#guessedName = nameFrom(fileName);
    name.set(this.#guessedName);
  }

  async #submit(event) {
    event.preventDefault();
    for (const field of Object.values(this.#fields)) field.setError(null);
    const file = this.file.files[0];
    if (!file) {
      fill(this.#progress, errorText("Select a file first."));
      this.file.focus();
      return;
    }
    addEventListener("beforeunload", confirmClosing);
    this.button.disabled = true;
    try {
      await this.#succeed(await this.#upload(file));
    } catch (error) {
      this.#fail(error, file);
    } finally {
      removeEventListener("beforeunload", confirmClosing);
      this.button.disabled = false;
    }
  }

  #upload(file) {
    const stop = new AbortController();
    const view = uploadView(file, () => stop.abort());
    fill(this.#progress, view.elements);
    const values = Object.values(this.#fields).map(({ name, value }) => [name, LISTS.has(name) ? listed(value()) : value()]);
    const path = withQuery("/v1/datasets", Object.fromEntries(values));
    return upload(path, file, { onProgress: view.show, signal: stop.signal });
  }

  async #succeed(created) {
    const records = sum(created.train_per_class) + sum(created.test_per_class);
    const message = `${created.name} is ready: ${counted(records, "record")}.`;
    if (this.signal.aborted) {
      toast(message);
      return;
    }
    fill(this.#progress, h("p", { role: "status" }, message));
    this.element.reset();
    this.#guessedName = "";
    await this.onCreated(created);
  }

  #fail(error, file) {
    if (this.signal.aborted) toast(`${file.name} was not uploaded: ${error.message}`, "error");
    else if (error.name === "AbortError") fill(this.#progress, h("p", {}, "Upload cancelled; nothing was stored."));
    else fill(this.#progress, h("p", { class: "wrong", role: "alert" }, this.#showErrors(error)));
  }

  /** Show errors at their fields; return the text for the others. */
  #showErrors({ fields: errors = [], message }) {
    const fieldOf = (error) => this.#fields[error.pointer.replace(/^\//, "")];
    for (const error of errors) fieldOf(error)?.setError(error.detail);
    const rest = errors.filter((error) => !fieldOf(error));
    if (rest.length) return rest.map((error) => error.detail).join("; ");
    return errors.length ? "The upload was rejected: see the fields above." : message;
  }
}

/** An area around the file input onto which a file can be dropped. */
function dropZone(input, onDrop) {
  const zone = h(
    "div",
    { class: "drop" },
    h("label", { for: input.id }, "Select a file, or drop one here"),
    h("p", {}, input),
  );
  const highlight = (event, isOver) => {
    event.preventDefault();
    zone.classList.toggle("over", isOver);
  };
  zone.addEventListener("dragover", (event) => highlight(event, true));
  zone.addEventListener("dragleave", (event) => highlight(event, false));
  zone.addEventListener("drop", (event) => {
    highlight(event, false);
    if (!event.dataTransfer.files.length) return;
    input.files = event.dataTransfer.files;
    onDrop();
  });
  return zone;
}

/** The progress of an upload: its elements, and `show(share)`. */
function uploadView(file, stop) {
  const text = h("p");
  const bar = h("div");
  // Made once: an element that is replaced on each progress event could not be clicked.
  const cancel = h(
    "p",
    {},
    actionButton("Cancel upload", async () => stop(), { kind: "small" }),
  );
  const show = (share) => {
    const isSending = share < 1;
    fill(
      text,
      isSending ? `Uploading ${file.name}: ${percent(share)} of ${bytes(file.size)}` : "Uploaded; checking \u2026",
    );
    fill(bar, progressBar(isSending ? share : null, "Progress of the upload"));
    cancel.hidden = !isSending;
  };
  show(0);
  return { elements: [text, bar, cancel], show };
}
