// What the owner of a job or a comparison changes after the fact: name, tags, note, and whether it is archived.

import { actionButton } from "../components/buttons.js";
import { toast } from "../components/toast.js";
import { change } from "../lib/api.js";
import { h } from "../lib/dom.js";
import { showFieldErrors, withPointers } from "./errors.js";
import { field, textField } from "./field.js";
import { fieldGrid, stack } from "./layout.js";
import { tagsField } from "./tags_field.js";

/** Elements that are made once and survive redraws: the buttons, and the form, which "Edit" shows and hides. */
export class Editor {
  #item;

  /** `path` is that of the job or comparison; `onSaved` gets the API's answer; `kind` is a class of the buttons. */
  constructor(path, onSaved, kind = "") {
    Object.assign(this, { path, onSaved });
    this.fields = [
      textField("name"),
      tagsField(),
      field("note", h("textarea", { rows: 3 }), { help: "For people; shown at the top of this page." }),
    ];
    this.error = h("p", { class: "wrong", role: "alert" });
    this.element = h(
      "form",
      { hidden: true, novalidate: true, "aria-label": "Edit", onsubmit: (event) => event.preventDefault() },
      stack(
        fieldGrid(this.fields),
        this.error,
        h("p", { class: "actions" }, [
          actionButton("Save", () => this.#save(), { kind: "primary" }),
          actionButton("Close", () => this.#show(false)),
        ]),
      ),
    );
    this.editButton = actionButton("Edit", () => this.#show(this.element.hidden), { kind });
    this.archiveButton = actionButton("Archive", () => this.#archive(true), { kind });
    this.restoreButton = actionButton("Restore", () => this.#archive(false), { kind });
  }

  /** The buttons for the item as it is now. */
  buttons(item, isFinal) {
    this.#item = item;
    return [this.editButton, isFinal && (item.archived_at ? this.restoreButton : this.archiveButton)];
  }

  #show(isShown) {
    this.element.hidden = !isShown;
    if (!isShown) return;
    const [name, tags, note] = this.fields;
    name.set(this.#item.name);
    tags.set(this.#item.tags);
    note.set(this.#item.note);
    this.#showErrors([]);
    name.control.focus();
  }

  async #save() {
    const [name, tags, note] = this.fields.map((each) => each.value());
    try {
      const saved = await change(this.path, { name: name ?? null, tags: tags ?? {}, note: note ?? null });
      this.#show(false);
      this.onSaved(saved);
    } catch (error) {
      if (!error.fields?.length) throw error;
      this.#showErrors(error.fields);
    }
  }

  #showErrors(errors) {
    this.error.textContent = withPointers(showFieldErrors(this.fields, errors));
  }

  async #archive(archived) {
    this.onSaved(await change(this.path, { archived }));
    toast(archived ? "Archived: lists and boards no longer show it." : "Restored.");
  }
}

/** The note and the archive in the head of a page. */
export const remarks = ({ note, archived_at: archived }) => [
  archived && h("span", { class: "chip" }, "archived"),
  note && h("p", { class: "sub lines" }, note),
];
