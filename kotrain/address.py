"""The address of the API and the key for it: their forms, their defaults, and an HTTP client."""

from __future__ import annotations

import ipaddress
import os
from urllib.parse import SplitResult, urlsplit

import httpx2

from kotrain import home
from kotrain.errors import InvalidAddress, InvalidValue
from service.home import LOOPBACK

TIMEOUT_SECONDS = 30.0
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


def checked(url: str) -> str:
    """The address without a final slash. Raises InvalidAddress, without the password that it may contain."""
    url = url.strip()
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # whose text may hold a part of a password
        raise InvalidAddress("the address of kotrain is invalid: write http://HOST:PORT or https://HOST") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        shown = "" if "@" in url else f" '{url}'"
        raise InvalidAddress(f"the address of kotrain{shown} must have the form http://HOST:PORT or https://HOST")
    if parts.username is not None or parts.password is not None:
        raise InvalidAddress(
            f"the address of kotrain must not contain a user or a password: write {parts.scheme}://{_host(parts)}, and "
            "set the API key with KOTRAIN_KEY"
        )
    if parts.query or parts.fragment:
        raise InvalidAddress(f"the address of kotrain must end after its path: '{url}' has a query or a fragment")
    return url.rstrip("/")


def _host(parts: SplitResult) -> str:
    return parts.netloc.rpartition("@")[2]


def is_loopback(url: str) -> bool:
    """Whether the address is on this machine."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    if host in LOOPBACK or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return mapped.is_loopback or mapped.is_unspecified


def is_same(one: str, other: str) -> bool:
    """Whether two addresses are the same; a host name is another address than the one it stands for.

    `localhost` may be another address than 127.0.0.1, at which another user can listen.
    """
    return _target(one) == _target(other)


def key_for(url: str, key: str | None) -> str | None:
    """The given key, else `KOTRAIN_KEY`, else the owner's for the stack that runs from the home now.

    While that stack is stopped, another user of this machine may listen at its address. Raises InvalidValue, without
    the key, if no header can hold it.
    """
    key = (key or os.environ.get("KOTRAIN_KEY") or _key_of_home(url) or "").strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise InvalidValue("key", "an API key has visible ASCII characters only; is it complete and nothing else?")
    return key or None


def _key_of_home(url: str) -> str | None:
    return home.key(home.folder()) if _is_stack(url) else None


def missing_key(url: str) -> str:
    """Why a request without a key was refused, and where to get one."""
    stack = home.running_now(home.folder())
    own = f"the one in {home.folder() / 'key'} is sent to {stack.url} only; " if stack else ""
    return (
        f"no API key for {url}: {own}set KOTRAIN_KEY, or pass `key` to Client; an admin creates keys with "
        "`kotrain key NAME`"
    )


def _is_stack(url: str) -> bool:
    """Whether the stack that runs from the home now listens at this address."""
    stack = home.running_now(home.folder())
    return stack is not None and is_same(url, stack.url)


def _default(url: str | None) -> str:
    """The given address or the default one; that of the running stack if it is named by `localhost`."""
    chosen, stack = url or home.address(), home.running_now(home.folder())
    is_stack = stack is not None and is_same(chosen.replace("//localhost", "//127.0.0.1", 1), stack.url)
    return stack.url if stack and is_stack else chosen


def _target(url: str) -> tuple[str, str, int, str]:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, parts.hostname or "", port, parts.path.rstrip("/")


def http_client(url: str | None) -> httpx2.Client:
    """A client for the address, or for the default one; proxies of the environment serve only other machines.

    Certificates of authorities, 50 ms of work, are read only for an address that has one. Raises InvalidAddress.
    """
    url = checked(_default(url))
    verify = urlsplit(url).scheme != "http"
    transport = httpx2.HTTPTransport(verify=verify) if is_loopback(url) or _is_stack(url) else None
    try:
        return httpx2.Client(base_url=url, timeout=TIMEOUT_SECONDS, verify=verify, transport=transport)
    except ImportError:
        raise InvalidAddress(
            f"{_proxy_variable()} names a SOCKS proxy, which needs a package: pip install socksio; or unset it"
        ) from None
    except (ValueError, httpx2.InvalidURL):
        raise InvalidAddress(
            f"the proxy in {_proxy_variable()} is invalid; write it in the form http://HOST:PORT, or unset it"
        ) from None


def _proxy_variable() -> str:
    """The environment variables that set a proxy."""
    names = [name for name in (*_PROXIES, *map(str.lower, _PROXIES)) if os.environ.get(name)]
    return " or ".join(names) or "HTTP_PROXY"
