"""Proves that the page answers under its own address only, and no page of another site."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from unet_dist.demo.gate import Gate, own_names


def ask(headers: dict[str, str], kind: str = "http", host: str = "127.0.0.1") -> list[dict[str, Any]]:
    """What comes back for a request: what the gate sends, or a note of the page behind it."""
    sent: list[dict[str, Any]] = []

    async def page(scope: Any, receive: Any, send: Any) -> None:
        sent.append({"type": "page"})

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {}

    scope = {"type": kind, "headers": [(key.encode(), value.encode()) for key, value in headers.items()]}
    asyncio.run(Gate(page, own_names(host))(scope, receive, send))
    return sent


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ({"host": "127.0.0.1:7860"}, True),
        ({"host": "localhost:7860", "origin": "http://localhost:7860"}, True),
        ({"host": "[::1]:7860", "origin": "http://[::1]:7860"}, True),
        ({"host": "192.168.1.7:7860"}, True),
        ({"Host": "LOCALHOST:7860"}, True),
        ({"host": "evil.example:7860"}, False),
        ({"host": "evil.example:7860", "origin": "http://evil.example:7860"}, False),
        ({"host": "127.0.0.1.evil.example"}, False),
        ({"host": "127.0.0.1:7860", "origin": "http://evil.example"}, False),
        ({"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:9999"}, False),
        ({"host": "127.0.0.1:7860", "origin": "null"}, False),
        ({"host": "[", "origin": "x"}, False),
        ({"host": "evil.example@127.0.0.1:7860"}, False),
        ({"host": "127.0.0.1:7860, evil.example"}, False),
        ({"host": "127.0.0.1:7860/evil.example"}, False),
        ({"host": "127.0.0.1:7860#evil"}, False),
        ({"host": "127.0.0.1:evil"}, False),
        ({}, False),
    ],
)
def test_other_hosts_and_origins_are_turned_away(headers: dict[str, str], passes: bool) -> None:
    assert (ask(headers) == [{"type": "page"}]) == passes
    assert ask(headers, "websocket")[0]["type"] == ("page" if passes else "websocket.close")
    if not passes:
        assert ask(headers)[0]["status"] == 403


def test_a_page_under_a_name_answers_to_it() -> None:
    assert ask({"host": "pictures.lab:7860"}, host="pictures.lab") == [{"type": "page"}]


def test_a_page_that_is_left_amid_an_upload_is_no_fault() -> None:
    """Its server would print a traceback for each; other faults it prints."""

    async def page(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        raise ValueError(message["type"])

    def call(kind: str) -> None:
        async def receive() -> dict[str, Any]:
            return {"type": kind}

        scope = {"type": "http", "headers": [(b"host", b"localhost")]}
        asyncio.run(Gate(page, own_names("127.0.0.1"))(scope, receive, lambda message: asyncio.sleep(0)))

    call("http.disconnect")
    with pytest.raises(ValueError, match=r"http\.request"):
        call("http.request")
