// The page of uploaded code: its versions, one of them in detail, and the form for uploads.

import { pageHead, section } from "../../components/layout.js";
import { errorText } from "../../components/states.js";
import { toast } from "../../components/toast.js";
import { get, remove } from "../../lib/api.js";
import { fill, h, opensElsewhere } from "../../lib/dom.js";
import { checksTable, codeList, codeView } from "./view.js";
import { UploadForm } from "./upload_form.js";

const UNTESTED_MILLISECONDS = 3000; // until the results of the conformance test are looked for again

export async function mount(root, { user, query, keepQuery, signal }) {
  const { code: support } = await get("/v1/catalog", {}, signal);
  const page = new CodePage({ support, user, keepQuery, signal });
  await page.load(); // before the form is shown, which would move when the list appears
  fill(root, page.elements());
  if (query.get("show")) await page.show(query.get("show"));
}

class CodePage {
  #list = h("div", { class: "part" });
  #detail = h("div");
  #checks = h("div"); // the results of the conformance test in it
  #shown = null; // name of the version in detail

  constructor({ support, user, keepQuery, signal }) {
    Object.assign(this, { support, user, keepQuery, signal });
    this.upload = new UploadForm(signal, async (created) => {
      await this.load();
      await this.show(created.name);
    });
    signal.addEventListener("abort", () => clearTimeout(this.timer));
  }

  elements() {
    const sub = `Optimizers of your own, for jobs and comparisons. Code runs ${this.support.runs}.`;
    const refused = h("p", { class: "warned" }, `Code is ${this.support.runs}.`);
    const form = this.support.accepted ? section("Upload", this.upload.element) : refused;
    return [pageHead("Code", { sub: this.support.accepted && sub }), this.#list, this.#detail, form];
  }

  async load() {
    const { data } = await get("/v1/code", { limit: 200 }, this.signal);
    fill(
      this.#list,
      codeList(data, (event, name) => this.#follow(event, name)),
    );
  }

  /** Show a version below the list when its link is clicked, unless it is opened in another tab. */
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
    try {
      const code = await this.#get(name);
      const { data } = await get("/v1/code", { owner: code.owner, name: moduleName(code.name) }, this.signal);
      if (this.#shown !== name) return;
      fill(this.#detail, this.#view(code, data));
      this.#showChecks(name, code);
    } catch (error) {
      this.#showError(name, error);
    }
  }

  #get(name) {
    return get(`/v1/code/${name.split("/").map(encodeURIComponent).join("/")}`, {}, this.signal);
  }

  /** Show the results of the test, now or when it has run. Nothing else is drawn again: the source stays open. */
  #showChecks(name, code) {
    fill(this.#checks, checksTable(code.checks));
    clearTimeout(this.timer);
    if (code.checks === null) this.timer = setTimeout(() => this.#refresh(name), UNTESTED_MILLISECONDS);
  }

  async #refresh(name) {
    if (this.#shown !== name || this.signal.aborted) return;
    try {
      const code = await this.#get(name);
      if (this.#shown === name) this.#showChecks(name, code);
    } catch (error) {
      this.#showError(name, error);
    }
  }

  #showError(name, error) {
    if (error.name === "AbortError" || this.#shown !== name) return;
    fill(this.#detail, section(name, errorText(error.message)));
  }

  #view(code, versions) {
    const mayDelete = this.user.is_admin || this.user.user === code.owner;
    const older = versions.find((version) => version.created_at < code.created_at);
    return codeView(code, this.#checks, {
      onDelete: mayDelete && (() => this.#delete(code)),
      onCompare: older && (() => this.#compare(older.name, code.name)),
    });
  }

  /** The lines that differ from an older version. */
  async #compare(old, name) {
    return (await get(`/v1/code/${name}/diff`, { old }, this.signal)).diff;
  }

  async #delete({ name }) {
    await remove(`/v1/code/${name}`);
    toast(`${name} deleted.`);
    if (this.#shown === name) {
      this.#shown = null;
      this.keepQuery({ show: null });
      fill(this.#detail);
    }
    await this.load();
  }
}

/** The name of code without its owner and version. */
const moduleName = (name) => name.split("/")[1].split("@")[0];
