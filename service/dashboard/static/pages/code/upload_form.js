// The form that uploads a file with an optimizer.

import { errorText } from "../../components/states.js";
import { textField } from "../../forms/field.js";
import { stack } from "../../forms/layout.js";
import { upload, withQuery } from "../../lib/api.js";
import { fill, h } from "../../lib/dom.js";

/** A name that may be that of a module, made from that of a file. */
const nameFrom = (fileName) =>
  fileName
    .replace(/\.[^.]*$/, "")
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "_")
    .replace(/^[^a-z]+/, "")
    .slice(0, 30);

export class UploadForm {
  #name = textField("name", {
    help: "Jobs refer to the code as USER/NAME. Up to 30 lower-case letters, digits and '_', starting with a letter.",
    placeholder: "mine",
  });
  #guessedName = "";
  #problem = h("div", { "aria-live": "polite" });

  /** `onCreated` gets the new version, unless the page has been left: `signal` is aborted then. */
  constructor(signal, onCreated) {
    Object.assign(this, { signal, onCreated });
    this.file = h("input", { type: "file", id: "code-file", accept: ".py", onchange: () => this.#guess() });
    this.button = h("button", { class: "primary", type: "submit" }, "Upload");
    this.element = h(
      "form",
      { onsubmit: (event) => this.#submit(event), novalidate: true },
      stack(
        h(
          "div",
          { class: "field" },
          h("label", { for: "code-file" }, "Python file"),
          this.file,
          h("p", { class: "note" }, "A subclass of torch.optim.Optimizer, or a function make(model, ...). Every parameter needs a default."),
        ),
        this.#name.element,
        h("p", { class: "actions" }, this.button),
        this.#problem,
      ),
    );
  }

  /** Set the name from that of the file, unless the user has typed one. */
  #guess() {
    if ((this.#name.value() ?? "") !== this.#guessedName) return;
    this.#guessedName = nameFrom(this.file.files[0]?.name ?? "");
    this.#name.set(this.#guessedName);
  }

  async #submit(event) {
    event.preventDefault();
    this.#name.setError(null);
    fill(this.#problem);
    const file = this.file.files[0];
    if (!file) {
      fill(this.#problem, errorText("Select a file first."));
      this.file.focus();
      return;
    }
    this.button.disabled = true;
    try {
      const query = { kind: "optimizer", name: this.#name.value() ?? "", file: file.name };
      const created = await upload(withQuery("/v1/code", query), file, { signal: this.signal });
      this.element.reset();
      this.#guessedName = "";
      if (!this.signal.aborted) await this.onCreated(created);
    } catch (error) {
      if (error.name !== "AbortError") this.#show(error);
    } finally {
      this.button.disabled = false;
    }
  }

  #show(error) {
    const ofName = (error.fields ?? []).find(({ pointer }) => pointer === "name");
    if (ofName) {
      this.#name.setError(ofName.detail);
      this.#name.control.focus();
    } else {
      fill(this.#problem, errorText(error.message));
    }
  }
}
