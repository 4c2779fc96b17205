"""The path below which a reverse proxy serves kotrain: https://lab.example/kotrain."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class PathPrefix:
    """Removes the prefix from paths, if the proxy has not done so, and adds it to `Location`.

    Args:
        app: the application, whose paths have no prefix.
        prefix: "" or a path without a final slash.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self.app = app
        self.prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http" or not self.prefix:
            await self.app(scope, receive, send)
            return

        async def send_with_prefix(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                location = headers.get("Location", "")
                if location.startswith("/"):
                    headers["Location"] = self.prefix + location
            await send(message)

        path = scope["path"]
        if path == self.prefix or path.startswith(f"{self.prefix}/"):
            path = path[len(self.prefix) :] or "/"
        await self.app({**scope, "path": path}, receive, send_with_prefix)
