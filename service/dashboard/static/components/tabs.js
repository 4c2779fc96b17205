// Tabs: several views, one of which is shown.

import { fill, h, uniqueId } from "../lib/dom.js";

/**
 * Tabs for views `{name, title, content()}`, the one named `selected` first; arrow keys, Home and End move between
 * them. `onSelect` gets the name of the selected view.
 */
export function tabs(label, views, selected, onSelect) {
  const panel = h("div", { role: "tabpanel", tabindex: "0", id: uniqueId("panel") });
  const buttons = views.map(({ title }, position) =>
    h(
      "button",
      {
        type: "button",
        role: "tab",
        id: uniqueId("tab"),
        "aria-controls": panel.id,
        onclick: () => select(position),
        onkeydown: (event) => move(event, position),
      },
      title,
    ),
  );
  function select(selectedPosition) {
    buttons.forEach((button, position) => {
      button.setAttribute("aria-selected", position === selectedPosition);
      button.tabIndex = position === selectedPosition ? 0 : -1;
    });
    panel.setAttribute("aria-labelledby", buttons[selectedPosition].id);
    fill(panel, views[selectedPosition].content());
    onSelect?.(views[selectedPosition].name);
  }
  function move(event, position) {
    const target = { ArrowRight: position + 1, ArrowLeft: position - 1, Home: 0, End: -1 }[event.key];
    if (target === undefined) return;
    event.preventDefault();
    const wrapped = (target + views.length) % views.length;
    select(wrapped);
    buttons[wrapped].focus();
  }
  select(
    Math.max(
      0,
      views.findIndex(({ name }) => name === selected),
    ),
  );
  const list = h("div", { class: "tablist", role: "tablist", "aria-label": label }, buttons);
  return h("div", { class: "tabs" }, list, panel);
}
