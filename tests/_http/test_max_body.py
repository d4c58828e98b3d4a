"""`max_body` bounds a response over every transport."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest

import kaleden
from _http.servers import TOKEN, reply
from kaleden import Failure, FailureKind
from support import raw_server, read_request

LOG = "x" * 1000

# The arguments of each kind of login.
WAYS: dict[str, Callable[[str], dict[str, Any]]] = {
    "token": lambda url: {"url": url, "token": TOKEN},
    "auth": lambda url: {"url": url, "auth": httpx.BasicAuth("me", "secret")},
    "client": lambda url: {"client": httpx.AsyncClient(base_url=url, trust_env=False)},
}


@asynccontextmanager
async def log_server() -> AsyncIterator[str]:
    """A server that sends the log for every request."""

    async def handler(stream: Any) -> None:
        while True:
            await read_request(stream)
            await stream.send(reply(LOG.encode()))

    async with raw_server(handler) as url:
        yield url


def assert_too_long(outcomes: kaleden.Outcomes[str]) -> None:
    [outcome] = outcomes
    assert isinstance(outcome, Failure)
    assert FailureKind.PROTOCOL is outcome.kind
    assert 1 == outcome.attempts
    assert "longer than 999 bytes; max_body= of the session takes more" in outcome.message


@pytest.mark.parametrize("way", WAYS)
async def test_max_body_bounds_the_response(way: str) -> None:
    async with log_server() as url:
        arguments = WAYS[way](url)
        async with kaleden.AsyncSession(**arguments, max_body=999) as session:
            assert_too_long(await session.logs("a"))
        async with kaleden.AsyncSession(**arguments, max_body=1000) as session:
            assert [LOG] == (await session.logs("a")).values
        async with kaleden.AsyncSession(**arguments) as session:
            assert [LOG] == (await session.logs("a")).values
        if "client" in arguments:
            await arguments["client"].aclose()


async def test_max_body_bounds_the_response_in_plain_code() -> None:
    def ask(url: str, max_body: int) -> kaleden.Outcomes[str]:
        with kaleden.Session(url, TOKEN, max_body=max_body) as session:
            return session.logs("a")

    async with log_server() as url:
        assert_too_long(await anyio.to_thread.run_sync(ask, url, 999))
        assert [LOG] == (await anyio.to_thread.run_sync(ask, url, 1000)).values
