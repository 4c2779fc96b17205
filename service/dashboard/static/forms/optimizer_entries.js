// The optimizers that a form offers: kotrain's own, then those of libraries.

/** Entries for `CatalogChoice`. Those of libraries name the address of their parameters. */
export const optimizerEntries = (catalog) => [
  ...catalog.optimizers,
  ...catalog.libraries.flatMap((library) =>
    library.optimizers
      .filter((optimizer) => optimizer.refusal === null)
      .map(({ name, title }) => ({
        name,
        title,
        group: `${library.name} ${library.version}`,
        address: `/v1/catalog/optimizers/${name}`,
      })),
  ),
];
