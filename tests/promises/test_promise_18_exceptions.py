"""Exceptions have one shape: errors of kaleden's tree, `BatchError`, and the caller's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any

import anyio
import pytest
from anyio.abc import SocketStream

pytest.importorskip("anycorn")

import kaleden
from kaleden.testing import MemoryTransport
from programs import IMAGE
from promises.answers import whole
from promises.loops import Virtual
from support import raw_server, read_request, session_on

SAID = {
    "nothing": b"",
    "no HTTP": b"220 mail.example ESMTP\r\n",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "half a body": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
    "a bad chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "no JSON": whole(b"{"),
    "a page": whole(b"<html>", kind="text/html"),
    "not logged in": whole(b"no", "401 Unauthorized", "text/plain"),
    "forbidden": whole(b"no", "403 Forbidden", "text/plain"),
    "not found": whole(b"session not found", "404 Not Found", "text/plain"),
    "a bug": whole(b"unexpected exception", "500 Oops", "text/plain"),
    "elsewhere": b"HTTP/1.1 302 Found\r\nLocation: //x\r\nContent-Length: 0\r\n\r\n",
}
ONE = ["fetch", "stats", "images", "context", "repositories", "availability"]
MANY = ["info", "logs", "events", "renew", "destroy", "connect"]


@pytest.mark.parametrize("said", SAID)
async def test_what_a_server_says_comes_out_as_errors_of_kaleden(
    said: str, trials: Callable[[int], None]
) -> None:
    async def say(stream: SocketStream) -> None:
        while said:
            await read_request(stream)
            await stream.send(SAID[said])
            if not SAID[said].endswith(b"}"):
                return

    soon = kaleden.RetryPolicy(base=0.01)
    async with raw_server(say) as url, kaleden.AsyncSession(url, "token", retry=soon) as session:
        for name in ONE:
            # Some calls take any text for an answer; whatever is raised must be ours.
            with suppress(kaleden.RequestError):
                await getattr(session, name)()
        for name in MANY:
            outcomes: kaleden.Outcomes[Any] = await getattr(session, name)(["a", "b"])
            with suppress(kaleden.BatchError):
                outcomes.raise_on_failure()
            for failure in outcomes.failures.values():
                assert isinstance(failure.to_exception(), kaleden.RequestError)
                assert "httpx" not in repr(failure)
    trials(len(ONE) + len(MANY))


class Mine(Exception):
    """The caller's own."""


def failing() -> Iterator[str]:
    yield from ("a", "b")
    raise Mine


async def failing_later() -> AsyncIterator[str]:
    yield "a"
    raise Mine


async def in_a_stream(session: kaleden.AsyncSession) -> None:
    async with session.stream.info(["a"] * 100) as results:
        async for _ in results:
            raise Mine


async def in_a_scope(session: kaleden.AsyncSession) -> None:
    async with session.scope() as scope:
        await scope.create("fits", IMAGE, replicas=3)
        raise Mine


async def in_a_log(session: kaleden.AsyncSession) -> None:
    created = await session.create("fits", IMAGE, replicas=3)
    async with session.follow(created) as lines:
        async for _ in lines:
            raise Mine


async def in_the_client(session: kaleden.AsyncSession) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(session.info, ["a", "b"])
    raise Mine


def mine(*_: object) -> bool:
    raise Mine


async def of_a_condition(session: kaleden.AsyncSession) -> None:
    await session.wait(await session.create("fits", IMAGE), mine)


async def of_progress(session: kaleden.AsyncSession) -> None:
    await session.wait(await session.create("fits", IMAGE), progress=mine)


async def of_ids(session: kaleden.AsyncSession) -> None:
    await session.info(failing())


async def of_ids_that_come_later(session: kaleden.AsyncSession) -> None:
    await session.info(failing_later())


async def of_ids_of_a_stream(session: kaleden.AsyncSession) -> None:
    async with session.stream.logs(failing()) as results:
        async for _ in results:
            pass


PLACES = [
    in_a_stream,
    in_a_scope,
    in_a_log,
    in_the_client,
    of_a_condition,
    of_progress,
    of_ids,
    of_ids_that_come_later,
    of_ids_of_a_stream,
]


@pytest.mark.parametrize("place", PLACES)
def test_the_callers_own_exception_comes_out_as_itself(virtual: Virtual, place: Any) -> None:
    async def program() -> None:
        async with (
            MemoryTransport(log=lambda _, seconds: "line\n" * int(seconds)) as world,
            kaleden.AsyncSession(transport=world) as session,
        ):
            await place(session)

    with pytest.raises(Mine):
        virtual.run(program)


@pytest.mark.parametrize("error", [OSError(), ExceptionGroup("many", [ValueError()]), KeyError()])
async def test_whatever_a_transport_raises_is_no_error_of_its_own(error: Exception) -> None:
    async def reply(_: object) -> Any:
        raise error

    session, _ = session_on(reply)
    async with session:
        with pytest.raises(kaleden.RequestError):
            await session.fetch()
        with pytest.raises(kaleden.BatchError) as caught:
            (await session.info(["a", "b"])).raise_on_failure()
    assert 2 == len(caught.value.exceptions)
