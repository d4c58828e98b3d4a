"""Exceptions are errors of kaleden's tree, `BatchError`, or those that the caller raises."""

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
from promises.answers import build_response
from promises.loops import VirtualLoop
from support import IMAGE, raw_server, read_request, session_on

RESPONSES = {
    "nothing": b"",
    "no HTTP": b"220 mail.example ESMTP\r\n",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "half a body": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
    "a bad chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "no JSON": build_response(b"{"),
    "a page": build_response(b"<html>", kind="text/html"),
    "not logged in": build_response(b"no", "401 Unauthorized", "text/plain"),
    "forbidden": build_response(b"no", "403 Forbidden", "text/plain"),
    "not found": build_response(b"session not found", "404 Not Found", "text/plain"),
    "a bug": build_response(b"unexpected exception", "500 Oops", "text/plain"),
    "elsewhere": b"HTTP/1.1 302 Found\r\nLocation: //x\r\nContent-Length: 0\r\n\r\n",
}
ONE = ["fetch", "stats", "images", "context", "repositories", "availability"]
MANY = ["info", "logs", "events", "renew", "destroy", "connect"]


@pytest.mark.parametrize("response", RESPONSES)
async def test_bad_responses_raise_errors_of_kaleden(
    response: str, count_trials: Callable[[int], None]
) -> None:
    async def serve(stream: SocketStream) -> None:
        while response:
            await read_request(stream)
            await stream.send(RESPONSES[response])
            if not RESPONSES[response].endswith(b"}"):
                return

    retry = kaleden.RetryPolicy(base=0.01)
    async with raw_server(serve) as url, kaleden.AsyncSession(url, "token", retry=retry) as session:
        for name in ONE:
            # Some calls accept any text. If a call raises, it must raise an error of kaleden.
            with suppress(kaleden.RequestError):
                await getattr(session, name)()
        for name in MANY:
            outcomes: kaleden.Outcomes[Any] = await getattr(session, name)(["a", "b"])
            with suppress(kaleden.BatchError):
                outcomes.raise_on_failure()
            for failure in outcomes.failures.values():
                assert isinstance(failure.to_exception(), kaleden.RequestError)
                assert "httpx" not in repr(failure)
    count_trials(len(ONE) + len(MANY))


class CallerError(Exception):
    """An exception that the caller raises."""


def yield_and_raise() -> Iterator[str]:
    yield from ("a", "b")
    raise CallerError


async def yield_and_raise_async() -> AsyncIterator[str]:
    yield "a"
    raise CallerError


async def raise_in_stream(session: kaleden.AsyncSession) -> None:
    async with session.stream.info(["a"] * 100) as results:
        async for _ in results:
            raise CallerError


async def raise_in_scope(session: kaleden.AsyncSession) -> None:
    async with session.scope() as scope:
        await scope.create("fits", IMAGE, replicas=3)
        raise CallerError


async def raise_in_log(session: kaleden.AsyncSession) -> None:
    created = await session.create("fits", IMAGE, replicas=3)
    async with session.follow(created) as lines:
        async for _ in lines:
            raise CallerError


async def raise_in_client(session: kaleden.AsyncSession) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(session.info, ["a", "b"])
    raise CallerError


def raise_caller_error(*_: object) -> bool:
    raise CallerError


async def raise_in_condition(session: kaleden.AsyncSession) -> None:
    await session.wait(await session.create("fits", IMAGE), raise_caller_error)


async def raise_in_progress(session: kaleden.AsyncSession) -> None:
    await session.wait(await session.create("fits", IMAGE), progress=raise_caller_error)


async def raise_in_ids(session: kaleden.AsyncSession) -> None:
    await session.info(yield_and_raise())


async def raise_in_async_ids(session: kaleden.AsyncSession) -> None:
    await session.info(yield_and_raise_async())


async def raise_in_ids_of_stream(session: kaleden.AsyncSession) -> None:
    async with session.stream.logs(yield_and_raise()) as results:
        async for _ in results:
            pass


PROGRAMS = [
    raise_in_stream,
    raise_in_scope,
    raise_in_log,
    raise_in_client,
    raise_in_condition,
    raise_in_progress,
    raise_in_ids,
    raise_in_async_ids,
    raise_in_ids_of_stream,
]


@pytest.mark.parametrize("raising_program", PROGRAMS)
def test_exception_of_caller_is_raised_unchanged(
    virtual: VirtualLoop, raising_program: Any
) -> None:
    async def program() -> None:
        async with (
            MemoryTransport(log=lambda _, seconds: "line\n" * int(seconds)) as world,
            kaleden.AsyncSession(transport=world) as session,
        ):
            await raising_program(session)

    with pytest.raises(CallerError):
        virtual.run(program)


@pytest.mark.parametrize("error", [OSError(), ExceptionGroup("many", [ValueError()]), KeyError()])
async def test_exception_of_transport_is_converted(error: Exception) -> None:
    async def respond(_: object) -> Any:
        raise error

    session, _ = session_on(respond)
    async with session:
        with pytest.raises(kaleden.RequestError):
            await session.fetch()
        with pytest.raises(kaleden.BatchError) as caught:
            (await session.info(["a", "b"])).raise_on_failure()
    assert 2 == len(caught.value.exceptions)
