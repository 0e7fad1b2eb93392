"""Who may talk to the page: browsers that were sent here by this page's own address, and no other site.

Owns the check of Host and Origin, as ASGI middleware. A name that somebody else's DNS points at this machine (rebinding) is no
address of the page, and a request that another page sends carries that page's Origin.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

_App = Callable[
    [MutableMapping[str, Any], Callable[..., Awaitable[Any]], Callable[..., Awaitable[Any]]], Awaitable[None]
]


_ADDRESS = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\s/?#@,:\[\]]+))(?::\d{1,5})?")
"""HOST:PORT and nothing around it: the page writes it into its own links."""


def own_names(host: str) -> frozenset[str]:
    """The names under which a page that listens on `host` is reached, beside plain addresses."""
    return frozenset({"localhost", host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()})


def is_own(address: str | None, names: frozenset[str]) -> bool:
    """Whether HOST:PORT is an address of this page: a plain IP address, which no DNS can bend, or one of its names.

    >>> is_own("127.0.0.1:7860", frozenset()), is_own("[::1]:7860", frozenset()), is_own("evil.example", frozenset({"localhost"}))
    (True, True, False)
    """
    match = _ADDRESS.fullmatch((address or "").lower())
    if match is None:
        return False
    name = match[1] or match[2]
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name in names
    return True


class Gate:
    """Answers 403 to requests that name another host, or come from another site's page.

    Args:
        app: that answers the others.
        names: as own_names gives them.
    """

    def __init__(self, app: _App, names: frozenset[str]) -> None:
        self._app, self._names = app, names

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[..., Awaitable[Any]],
        send: Callable[..., Awaitable[Any]],
    ) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] not in ("http", "websocket") or self._may_pass(scope):
            await self._pass(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            head = [(b"content-type", b"text/plain; charset=utf-8")]
            await send({"type": "http.response.start", "status": 403, "headers": head})
            await send({"type": "http.response.body", "body": b"This page answers under its own address only.\n"})

    async def _pass(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[..., Awaitable[Any]],
        send: Callable[..., Awaitable[Any]],
    ) -> None:
        """Let the page answer; what it raises after the browser left, such as amid an upload, is no fault of it."""
        has_left = False

        async def noticing() -> Any:
            nonlocal has_left
            message = await receive()
            has_left = has_left or message["type"] == "http.disconnect"
            return message

        try:
            await self._app(scope, noticing, send)
        except Exception:
            if not has_left:
                raise

    def _may_pass(self, scope: MutableMapping[str, Any]) -> bool:
        headers = [(key.lower(), value.decode("latin-1").lower()) for key, value in scope["headers"]]
        hosts = [value for key, value in headers if key == b"host"]
        origins = [value for key, value in headers if key == b"origin"]
        if len(hosts) != 1 or not is_own(hosts[0], self._names):
            return False
        return all(origin in (f"http://{hosts[0]}", f"https://{hosts[0]}") for origin in origins)
