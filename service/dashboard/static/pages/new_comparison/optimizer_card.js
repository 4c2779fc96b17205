// The card of an optimizer: its fixed hyperparameters, and the search space of the tuned ones.

import { note } from "../../components/states.js";
import { CatalogChoice } from "../../forms/catalog_choice.js";
import { optimizerEntries, unlistedEntry } from "../../forms/optimizer_entries.js";
import { showFieldErrors, showPartErrors } from "../../forms/errors.js";
import { textField } from "../../forms/field.js";
import { stack } from "../../forms/layout.js";
import { SearchSpace } from "../../forms/search_space.js";
import { defined } from "../../forms/training_fields.js";
import { fill, h } from "../../lib/dom.js";

/** `onChange` is called when a tuned hyperparameter is added or removed. */
export function optimizerCard(catalog, initial, onChange) {
  const choice = new CatalogChoice("optimizer", optimizerEntries(catalog), { unlisted: unlistedEntry });
  const label = textField("label", { help: "Shown in tables; derived from the configuration if empty." });
  const errorText = h("p", { class: "wrong" });
  const space = new SearchSpace({
    onChange: () => {
      fit();
      onChange();
    },
  });

  /** Offer the optimizer's parameters for tuning, and disable the fixed values of those that are tuned. */
  function fit() {
    if (choice.isLoading) return; // a change follows
    space.offer(choice.params.tunable());
    choice.params.disableTuned(space.names());
  }

  const { name, label: givenLabel, params, space: ranges } = typeof initial === "string" ? { name: initial } : initial;
  choice.set({ name, params });
  label.set(givenLabel);
  fit();
  for (const [parameter, range] of Object.entries(ranges ?? {})) space.add(parameter, range);
  return {
    fit,
    content: cardView({ choice, label, space, errorText }),
    value() {
      const chosen = choice.value();
      const entry = typeof chosen === "string" ? { name: chosen } : chosen;
      return defined({ ...entry, space: space.value(), label: label.value() });
    },
    showErrors(errors) {
      const rest = showFieldErrors([label], showPartErrors({ params: choice.params, space }, errors));
      const texts = rest.map((error) => `${error.pointer.slice(1).replaceAll("/", ", ")}: ${error.detail}`);
      fill(errorText, texts.join("; "));
      return [];
    },
  };
}

const cardView = ({ choice, label, space, errorText }) => [
  h("div", { class: "columns" }, choice.element, label.element),
  stack(
    h("span", { class: "label" }, "Tuned hyperparameters"),
    note(
      "Chosen by validation score, with the same number of trials for each tuned optimizer (except in a grid search).",
    ),
    space.element,
  ),
  errorText,
];
