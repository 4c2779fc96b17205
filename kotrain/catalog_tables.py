"""Tables of the catalog for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from kotrain.tables import plain

if TYPE_CHECKING:
    from service.specs.bodies import Catalog, LibraryEntry, ModelDetail, ModelLibraryDetail, OptimizerDetail


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
    for models_of in listed.model_libraries:
        title = f"{models_of.models:,} more models, of version {models_of.version}: kotrain catalog {models_of.name}"
        table.add_row("library", models_of.name, title, "")
    return table


def models(listed: ModelLibraryDetail) -> Table:
    """One row per model of a library, with its size, or with the reason if it cannot be used."""
    table = plain("name", "parameters", "smallest images", "title")
    for column, width in zip(table.columns, (max(len(entry.name) for entry in listed.models), 10, 15), strict=False):
        column.min_width = width
    for entry in listed.models:
        if entry.refusal is None:
            facts = (millions(entry.parameters), f"{entry.smallest_side} px", entry.title)
        else:
            facts = ("", "", f"refused: {entry.refusal}")
        table.add_row(entry.name, *map(Text, facts))
    return table


def model(detail: ModelDetail) -> Group:
    """A model of a library: its title, its size and the images that it takes."""
    if detail.refusal is not None:
        return Group(Text(detail.title), Text(f"refused: {detail.refusal}"))
    smallest, multiple = detail.smallest_side, detail.multiple_of
    if multiple == 0:
        sides = f"of {smallest} x {smallest} pixels only"
    else:
        sides = f"from {smallest} x {smallest} pixels{f', multiples of {multiple}' if multiple > 1 else ''}"
    limits = [text for text, holds in (("square", detail.is_square), ("color", detail.is_colour_only)) if holds]
    facts = [
        f"{millions(detail.parameters)} parameters for color images and 1,000 classes",
        f"takes {' '.join([*limits, 'images'])} {sides}; published for {detail.native_side}",
        f"fitted to the data: {', '.join([*detail.stem, *detail.head])}",
    ]
    return Group(Text(detail.title), *(Text(f"- {fact}") for fact in facts))


def millions(count: int) -> str:
    """`0.41 M`, `11.7 M`, `2,720 M`."""
    return f"{count / 1e6:,.0f} M" if count >= 99.5e6 else f"{count / 1e6:.3g} M"


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
