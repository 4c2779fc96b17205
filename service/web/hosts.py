"""The names under which the API answers: another site's name that resolves to its address (DNS rebinding) is none."""

from __future__ import annotations

import ipaddress
import socket
import time

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import Misdirected
from service.web.problem_details import respond

LOCAL = (".localhost", ".local", ".lan", ".internal", ".home.arpa")
"""Ends of names that the public DNS does not have."""
LOOK_UP_SECONDS = 60.0
PROBES = ("/healthz", "/readyz")


class KnownHosts:
    """Answers 421 to requests whose `Host` is a public name that is neither this machine's nor in `names`.

    Addresses, names without a dot and those of local networks are accepted: no web page can have them. So are probes of
    load balancers.
    """

    def __init__(self, app: ASGIApp, names: str) -> None:
        self.app = app
        self._own_names: frozenset[str] = frozenset()
        self._looked_up_at = float("-inf")
        self.names = frozenset(name.strip().lower() for name in names.split(",") if name.strip())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] == "http" and "*" not in self.names and scope["path"] not in PROBES:
            host = _name(Headers(scope=scope).get("Host", ""))
            if not (_is_local(host) or host in self.names or host in await self._own()):
                error = Misdirected(
                    f"this server is not known as '{host[:100]}'; add the name to KOTRAIN_HOSTS, or use its address"
                )
                await respond(Request(scope), error)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    async def _own(self) -> frozenset[str]:
        """The names of this machine. Right after a boot, the DNS may not know them yet."""
        is_known = any("." in name for name in self._own_names)
        if not is_known and time.monotonic() - self._looked_up_at >= LOOK_UP_SECONDS:
            self._looked_up_at = time.monotonic()
            self._own_names = await run_in_threadpool(_own_names)
        return self._own_names


def _name(host: str) -> str:
    """The name or address, without the port and the brackets of IPv6."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".").lower()


def _is_local(host: str) -> bool:
    if "." not in host and ":" not in host:
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host.endswith(LOCAL)
    return True


def _own_names() -> frozenset[str]:
    """The names of this machine, by its own settings; the look-up may ask the DNS."""
    return frozenset(name.lower() for name in (socket.gethostname(), socket.getfqdn()))
