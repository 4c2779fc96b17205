// The optimizers that a form offers: kotrain's own, then uploaded ones and those of libraries.

const address = (name) => `/v1/catalog/optimizers/${name}`;

const uploadedEntry = (name, title) => ({ name, title, group: "Uploaded", address: address(name) });

/** The entry of an optimizer that is not listed: an older version of an uploaded one; undefined for other names. */
export const unlistedEntry = (name) => (/^[^/]+\/[^/]+@/.test(name) ? uploadedEntry(name, "") : undefined);

/** Entries for `CatalogChoice`. Those of libraries name the address of their parameters. */
export const optimizerEntries = (catalog) => [
  ...catalog.optimizers,
  ...(catalog.code?.optimizers ?? []).map(({ name, title }) => uploadedEntry(name, title)),
  ...catalog.libraries.flatMap((library) =>
    library.optimizers
      .filter((optimizer) => optimizer.refusal === null)
      .map(({ name, title }) => ({
        name,
        title,
        group: `${library.name} ${library.version}`,
        address: address(name),
      })),
  ),
];
