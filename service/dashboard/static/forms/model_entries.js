// The models that a form offers: kotrain's own, then those of libraries.

import { get } from "../lib/api.js";
import { counted } from "../lib/format.js";

const NO_PARAMS = { properties: {} };

const describe = ({ title, parameters, smallest_side }) =>
  `${title}. ${counted(parameters, "parameter")} for 1,000 classes; images from ${counted(smallest_side, "pixel")}.`;

/** The catalog for forms: with the models of libraries, which it does not list because they are many. */
export async function catalogOfForms(signal) {
  const catalog = await get("/v1/catalog", {}, signal);
  const addresses = catalog.model_libraries.map((library) => `/v1/catalog/models/${library.name}`);
  const libraries = await Promise.all(addresses.map((address) => get(address, {}, signal)));
  return { ...catalog, models: [...catalog.models, ...libraries.flatMap(entries)] };
}

const entries = (library) =>
  library.models
    .filter((model) => model.refusal === null)
    .map((model) => ({
      name: model.name,
      title: describe(model),
      group: `${library.name} ${library.version}`,
      params: NO_PARAMS,
      reads: "image",
      also_reads: [],
    }));
