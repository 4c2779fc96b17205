"""Options of the commands that change names, tags, notes and the archive."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import typer

from kotrain import request_body

Name = Annotated[str | None, typer.Option(help="New name.")]
Tags = Annotated[
    list[str] | None, typer.Option("--tag", metavar="KEY:VALUE", help="Tag; repeatable. Replaces all tags.")
]
NoTags = Annotated[bool, typer.Option("--no-tags", help="Remove all tags.")]
Note = Annotated[str | None, typer.Option(help="Note; an empty one removes it.")]
Archive = Annotated[
    bool | None,
    typer.Option("--archive/--restore", help="Keep it out of lists, boards and the leaderboard, or bring it back."),
]
Archived = Annotated[bool, typer.Option("--archived", help="Include archived ones.")]


def changes(
    name: str | None, tag: Iterable[str] | None, no_tags: bool, note: str | None, archive: bool | None
) -> dict[str, Any]:
    """The fields to change. Raises BadParameter if there are none, or tags and --no-tags."""
    if tag and no_tags:
        raise typer.BadParameter("--no-tags removes all tags: omit --tag")
    pairs = (request_body.tag_filter(pair).partition(":") for pair in tag or ())
    tags = {key: value for key, _, value in pairs} if tag or no_tags else None
    given = {"name": name, "tags": tags, "note": note, "archived": archive}
    wanted = {field: value for field, value in given.items() if value is not None}
    if not wanted:
        raise typer.BadParameter("give --name, --tag, --no-tags, --note, --archive or --restore")
    return wanted
