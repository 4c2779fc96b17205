"""Tables of the catalog for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from kotrain.tables import plain

if TYPE_CHECKING:
    from service.specs.bodies import Catalog, LibraryEntry, OptimizerDetail


def catalog(listed: Catalog) -> Table:
    """One row per catalog entry."""
    table = plain("kind", "name", "title", "availability")
    for dataset in listed.datasets:
        table.add_row("data set", dataset.name, dataset.title, "present" if dataset.present else dataset.fetch)
    for kind in ("model", "optimizer", "schedule"):
        for entry in getattr(listed, f"{kind}s"):
            table.add_row(kind, entry.name, entry.title, "")
    for library in listed.libraries:
        count = sum(optimizer.refusal is None for optimizer in library.optimizers)
        title = f"{count} more optimizers, of version {library.version}: kotrain catalog {library.name}"
        table.add_row("library", library.name, title, "")
    return table


def library(listed: LibraryEntry) -> Table:
    """One row per optimizer of a library, with the reason if it cannot be used."""
    table = plain("name", "title", "availability")
    table.columns[0].min_width = max(len(entry.name) for entry in listed.optimizers)
    for entry in listed.optimizers:
        table.add_row(entry.name, Text(entry.title), Text("" if entry.refusal is None else f"refused: {entry.refusal}"))
    return table


def optimizer(detail: OptimizerDetail) -> Group:
    """An optimizer of a library: its title, its parameters, what it needs, and remarks."""
    if detail.refusal is not None:
        return Group(Text(detail.title), Text(f"refused: {detail.refusal}"))
    facts = [
        f"needs from the training loop: {', '.join(detail.needs) or 'gradients only'}",
        f"can be the base of: {', '.join(detail.base_of) or 'no other optimizer'}",
        *detail.remarks,
    ]
    return Group(Text(detail.title), parameters(detail.params), *(Text(f"- {fact}") for fact in facts))


def parameters(schema: dict[str, Any]) -> Table:
    """One row per parameter of a JSON Schema, with default and description; for KO and controls those on Adam."""
    if "oneOf" in schema:
        schema = next(params for name, params in schema["$defs"].items() if name.endswith("AdamParams"))
    table = plain("parameter", "default", "description")
    table.columns[-1].no_wrap = False
    for name, field in schema.get("properties", {}).items():
        options = field.get("enum")
        sentences = [field.get("description", "").rstrip("."), options and f"One of: {', '.join(map(str, options))}"]
        text = "".join(f"{sentence}. " for sentence in sentences if sentence)
        table.add_row(name, Text(str(field.get("default", field.get("const", "-")))), Text(text.strip()))
    return table
