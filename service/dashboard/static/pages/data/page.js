// The page of data sets: built-in and uploaded ones, and the form for uploads.

import { pageHead, section } from "../../components/layout.js";
import { errorText } from "../../components/states.js";
import { toast } from "../../components/toast.js";
import { get, remove } from "../../lib/api.js";
import { fill, h, opensElsewhere } from "../../lib/dom.js";
import { datasetView } from "./dataset_view.js";
import { listView } from "./list_view.js";
import { UploadForm } from "./upload_form.js";

export async function mount(root, { user, query, keepQuery, signal }) {
  const { models } = await get("/v1/catalog", {}, signal);
  const page = new DataPage({ models, user, keepQuery, signal });
  await page.load(); // before the form is shown, which would move when the list appears
  fill(root, page.elements());
  if (query.get("show")) await page.show(query.get("show"));
}

class DataPage {
  #list = h("div", { class: "part" });
  #detail = h("div");
  #shown = null; // name of the data set in detail

  constructor({ models, user, keepQuery, signal }) {
    Object.assign(this, { models, user, keepQuery, signal });
    this.upload = new UploadForm(signal, async (created) => {
      await this.load();
      await this.show(created.name);
    });
  }

  elements() {
    const sub = "Data sets for training. Uploads are split once into training and test parts, the same for all users.";
    return [pageHead("Data sets", { sub }), this.#list, this.#detail, section("Upload", this.upload.element)];
  }

  async load() {
    const { data } = await get("/v1/datasets", {}, this.signal);
    fill(
      this.#list,
      listView(data, (event, name) => this.#follow(event, name)),
    );
  }

  /** Show a data set below the list when its link is clicked, unless it is opened in another tab. */
  async #follow(event, name) {
    if (opensElsewhere(event)) return;
    event.preventDefault();
    await this.show(name);
    this.#detail.scrollIntoView({ block: "nearest" });
  }

  async show(name) {
    this.#shown = name;
    this.keepQuery({ show: name });
    fill(this.#detail, section(name, "Loading \u2026"));
    const path = name.split("/").map(encodeURIComponent).join("/");
    try {
      const dataset = await get(`/v1/datasets/${path}`, {}, this.signal);
      if (this.#shown === name) fill(this.#detail, this.#view(dataset));
    } catch (error) {
      if (error.name === "AbortError" || this.#shown !== name) return;
      fill(this.#detail, section(name, errorText(error.message)));
    }
  }

  #view(dataset) {
    const mayDelete = this.user.is_admin || this.user.user === dataset.owner;
    return datasetView(dataset, this.models, mayDelete && (() => this.#delete(dataset)));
  }

  async #delete({ name }) {
    await remove(`/v1/datasets/${name}`);
    toast(`${name} deleted.`);
    if (this.#shown === name) {
      this.#shown = null;
      this.keepQuery({ show: null });
      fill(this.#detail);
    }
    await this.load();
  }
}
