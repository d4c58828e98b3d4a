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
from kaleden import Failure, FailureKind, Success
from kaleden._wire import Request, Response
from support import FULL_IMAGE, raw_server, read_request, session_on, text

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


def assert_too_long(outcomes: kaleden.Outcomes[Any]) -> None:
    [outcome] = outcomes
    assert isinstance(outcome, Failure)
    assert FailureKind.PROTOCOL is outcome.kind
    assert 1 == outcome.attempts
    assert "longer than 999 bytes; max_body= of the session takes more" in outcome.message


@asynccontextmanager
async def open_session(way: str, url: str, **options: Any) -> AsyncIterator[kaleden.AsyncSession]:
    arguments = WAYS[way](url)
    async with kaleden.AsyncSession(**arguments, **options) as session:
        yield session
    if "client" in arguments:
        await arguments["client"].aclose()


@pytest.mark.parametrize("way", WAYS)
async def test_max_body_bounds_the_response(way: str) -> None:
    async with log_server() as url:
        async with open_session(way, url, max_body=999) as session:
            assert_too_long(await session.info("a"))
            [outcome] = await session.logs("a")
            assert Success("a", LOG[1:], omitted=1) == outcome
        for options in ({"max_body": 1000}, {}):
            async with open_session(way, url, **options) as session:
                assert Success("a", LOG) == (await session.logs("a"))["a"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("max_bytes", [1, 10, 999, 1000, 1001, 10**9])
async def test_max_bytes_keeps_the_end_of_a_log(way: str, max_bytes: int) -> None:
    async with log_server() as url, open_session(way, url, max_body=100) as session:
        omitted = max(0, 1000 - max_bytes)
        expected = Success("a", LOG[omitted:], omitted=omitted)
        assert [expected] == list(await session.logs("a", max_bytes=max_bytes))
        async with session.stream.logs("a", max_bytes=max_bytes) as results:
            assert [expected] == [outcome async for outcome in results]
        assert 0 == session.statistics().limiter.in_flight


@pytest.mark.parametrize("bad", [0, -1, 1.5, True, "9"])
async def test_invalid_max_bytes_is_refused_before_any_request(bad: Any) -> None:
    async with kaleden.AsyncSession("http://127.0.0.1:9/skaha", TOKEN) as session:
        with pytest.raises(kaleden.InvalidRequest, match="max_bytes"):
            await session.logs("a", max_bytes=bad)
        with pytest.raises(kaleden.InvalidRequest, match="max_log_bytes"):
            await session.run("fits", FULL_IMAGE, max_log_bytes=bad)


async def test_incomplete_character_at_the_start_is_left_out() -> None:
    async def send(_: Request) -> Response:
        return text("日本語")

    session, _ = session_on(send)
    async with session:
        for max_bytes, kept in [(9, "日本語"), (8, "本語"), (6, "本語"), (3, "語"), (2, "")]:
            assert [kept] == (await session.logs("a", max_bytes=max_bytes)).values


async def test_max_body_bounds_the_response_in_plain_code() -> None:
    def ask(url: str, max_body: int) -> kaleden.Outcomes[str]:
        with kaleden.Session(url, TOKEN, max_body=max_body) as session:
            return session.logs("a")

    async with log_server() as url:
        outcomes = await anyio.to_thread.run_sync(ask, url, 999)
        assert [Success("a", LOG[1:], omitted=1)] == list(outcomes)
        assert [LOG] == (await anyio.to_thread.run_sync(ask, url, 1000)).values
