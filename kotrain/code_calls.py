"""The methods of the client for uploaded code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kotrain.transport import Transport
from service.code.schemas import CodeChange, CodeDetail, CodeKind, CodeView
from service.specs.bodies import Page


class CodeCalls:
    """Uploads, shows, lists, compares and deletes code."""

    _transport: Transport

    def add_code(self, path: str | Path, name: str | None = None, *, kind: CodeKind = "optimizer") -> CodeDetail:
        """Upload a Python file with an optimizer of your own; jobs refer to it by the returned `name`.

        Args:
            path: the file; docs/own-optimizer.md says what it has to contain.
            name: 1 to 30 lower-case letters, digits and `_`; default: the file's name without `.py`.
            kind: what the file defines.

        The same file again returns the same version. Raises `InvalidRequest`, with the line, for a file that kotrain
        cannot use.
        """
        file = Path(path)
        query = {"kind": kind, "name": name or file.stem, "file": file.name}
        return self._transport.upload(CodeDetail, "/v1/code", file, query, None)

    def code(self, name: str) -> CodeDetail:
        """A version of uploaded code, such as ada/mine@3f2a9c71; without a version, the newest. Raises `NotFound`."""
        return self._transport.call(CodeDetail, "GET", f"/v1/code/{name}")

    def list_code(
        self, *, owner: str | None = None, name: str | None = None, page_size: int = 100
    ) -> Iterator[CodeView]:
        """All versions of uploaded code, newest first; `name` is without its owner."""
        after = None
        while True:
            query = {"owner": owner, "name": name, "limit": page_size, "after": after}
            page = self._transport.call(Page[CodeView], "GET", "/v1/code", query=query)
            yield from page.data
            if page.next is None:
                return
            after = page.next

    def diff_code(self, old: str, new: str) -> str:
        """A unified diff of two versions; empty if they are equal. Raises `NotFound`."""
        return self._transport.call(CodeChange, "GET", f"/v1/code/{new}/diff", query={"old": old}).diff

    def remove_code(self, name: str) -> None:
        """Delete a version of your own; admins can delete any. Raises `Conflict` if a job or comparison uses it."""
        self._transport.send("DELETE", f"/v1/code/{name}")
