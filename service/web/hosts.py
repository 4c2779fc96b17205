"""The names under which the API answers: another site's name that resolves to its address (DNS rebinding) is none."""

from __future__ import annotations

import ipaddress
import socket
from functools import lru_cache

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import Misdirected
from service.web.problem_details import respond

LOCAL = (".localhost", ".local", ".lan", ".internal", ".home.arpa")
"""Ends of names that the public DNS does not have."""
PROBES = ("/healthz", "/readyz")


class KnownHosts:
    """Answers 421 to requests whose `Host` is a public name that is neither this machine's nor in `names`.

    Addresses, names without a dot and those of local networks are accepted: no web page can have them. So are probes of
    load balancers.
    """

    def __init__(self, app: ASGIApp, names: str) -> None:
        self.app = app
        self.names = frozenset(name.strip().lower() for name in names.split(",") if name.strip())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] == "http" and "*" not in self.names and scope["path"] not in PROBES:
            host = _name(Headers(scope=scope).get("Host", ""))
            if not (_is_local(host) or host in self.names or host in _own_names()):
                error = Misdirected(
                    f"this server is not known as '{host[:100]}'; add the name to KOTRAIN_HOSTS, or use its address"
                )
                await respond(Request(scope), error)(scope, receive, send)
                return
        await self.app(scope, receive, send)


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


@lru_cache(maxsize=1)
def _own_names() -> frozenset[str]:
    """The names of this machine, by its own settings; the look-up may ask the DNS."""
    return frozenset(name.lower() for name in (socket.gethostname(), socket.getfqdn()))
