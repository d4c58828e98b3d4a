"""The adapter over httpx: replies, errors, and that no connection is ever lost."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import anyio
import pytest
from anyio.abc import SocketStream
from anyio.lowlevel import checkpoint

import kaleden
from kaleden import Failure, FailureKind
from kaleden._http import HttpxTransport
from support import PLAIN_BACKENDS, raw_server, read_request, session_object

TOKEN = "a-token"


def reply(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    lines = [b"HTTP/1.1 " + status, b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def describe(stream: SocketStream) -> None:
    """Answer every request of a connection with the session that it asks for."""
    while True:
        request = await read_request(stream)
        key = request.split(b" ", 2)[1].rpartition(b"/")[2].decode()
        await stream.send(reply(json.dumps(session_object(key)).encode()))


def always(answer: bytes) -> Callable[[SocketStream], Awaitable[None]]:
    async def handler(stream: SocketStream) -> None:
        await read_request(stream)
        await stream.send(answer)

    return handler


async def test_what_is_sent() -> None:
    seen: list[bytes] = []

    async def handler(stream: SocketStream) -> None:
        while True:
            seen.append(request := await read_request(stream))
            body = b"k3jd92xa\n" if request.startswith(b"POST") else b"[]"
            await stream.send(reply(body, b"set-cookie: CADC_SSO=tasty; path=/"))

    async with raw_server(handler) as url, kaleden.AsyncSession(url, TOKEN) as session:
        await session.create("fits", "skaha/astroml:latest", env={"A": "1"})
        assert not (await session.info("k3jd92xa")).ok
        with pytest.raises(kaleden.ProtocolError):
            await session.availability()
    listed, create, info, availability = (request.decode() for request in seen)
    assert listed.startswith("GET /skaha/v1/session HTTP/1.1\r\n")
    assert create.startswith("POST /skaha/v1/session HTTP/1.1\r\n")
    assert "content-type: application/x-www-form-urlencoded\r\n" in create.lower()
    assert "env=A%3D1" in create
    assert info.startswith("GET /skaha/v1/session/k3jd92xa HTTP/1.1\r\n")
    assert availability.startswith("GET /skaha/availability HTTP/1.1\r\n")
    for request in (create, info, availability):
        assert f"authorization: bearer {TOKEN}\r\n" in request.lower()
        assert "user-agent: kaleden/" in request.lower()
        assert "cookie" not in request.lower()


async def test_no_token_is_no_header() -> None:
    seen: list[bytes] = []

    async def handler(stream: SocketStream) -> None:
        seen.append(await read_request(stream))
        await stream.send(reply(b"[]"))

    async with raw_server(handler) as url, kaleden.AsyncSession(url) as session:
        assert [] == await session.fetch()
    assert b"authorization" not in seen[0].lower()


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (b"", FailureKind.CONNECTION_LOST, "disconnected"),
        (b"HTTP/1.1 200 OK\r\n", FailureKind.CONNECTION_LOST, ""),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{}", FailureKind.CONNECTION_LOST, ""),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", FailureKind.PROTOCOL, ""),
        (reply(b"\x1f\x8b\x08\x00", b"content-encoding: gzip"), FailureKind.PROTOCOL, ""),
        (reply(b"<html><title>Sign in</title></html>"), FailureKind.PROTOCOL, "Sign in"),
        (reply(b'{"id": "a", "na'), FailureKind.PROTOCOL, ""),
        (reply(b""), FailureKind.PROTOCOL, ""),
        (
            reply(b"", b"location: https://elsewhere.example/", status=b"302 Found"),
            FailureKind.PROTOCOL,
            "elsewhere",
        ),
        (reply(b"gone", status=b"404 Not Found"), FailureKind.NOT_FOUND, "gone"),
        (reply(b"later", b"retry-after: 30", status=b"503 Busy"), FailureKind.UNAVAILABLE, "later"),
    ],
    ids=lambda value: repr(value)[:30],
)
async def test_what_a_server_may_say_instead(answer: bytes, kind: FailureKind, words: str) -> None:
    async with raw_server(always(answer)) as url, kaleden.AsyncSession(url, TOKEN) as session:
        [outcome] = await session.info("a")
        assert isinstance(outcome, Failure)
        assert (kind, True) == (outcome.kind, outcome.sent)
        assert words in outcome.message
        assert 0 == session.statistics().transport.stuck  # type: ignore[union-attr]
    if kind is FailureKind.UNAVAILABLE:
        assert 30.0 == outcome.retry_after


async def test_nothing_was_sent_where_nobody_listens() -> None:
    async with raw_server(describe) as url:
        pass
    async with kaleden.AsyncSession(url, TOKEN) as session:
        outcomes = await session.create("fits", "skaha/astroml:latest", replicas=3)
    assert {(FailureKind.CONNECT_FAILED, False)} == {
        (failure.kind, failure.sent) for failure in outcomes.failures.values()
    }
    assert 3 == len(outcomes)


async def test_a_reply_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kaleden._http._httpx.MAX_BODY", 10_000)

    async def handler(stream: SocketStream) -> None:
        await read_request(stream)
        await stream.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await stream.send(b"x" * 1000)

    async with raw_server(handler) as url, kaleden.AsyncSession(url, TOKEN) as session:
        [failure] = (await session.logs("a")).failures.values()
        assert FailureKind.PROTOCOL == failure.kind
        assert "10000 bytes" in failure.message
        assert 0 == session.statistics().transport.stuck  # type: ignore[union-attr]


async def test_a_reply_that_trickles_has_its_time_as_a_whole() -> None:
    async def handler(stream: SocketStream) -> None:
        await read_request(stream)
        await stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
        while True:
            await stream.send(b"x")
            await anyio.sleep(0.01)

    async with raw_server(handler) as url, kaleden.AsyncSession(url, TOKEN, timeout=0.2) as session:
        [failure] = (await session.logs("a")).failures.values()
    assert FailureKind.TIMED_OUT == failure.kind


async def test_connections_are_kept_and_never_more_than_the_limit() -> None:
    opened = 0

    async def handler(stream: SocketStream) -> None:
        nonlocal opened
        opened += 1
        await describe(stream)

    async with raw_server(handler) as url:
        async with kaleden.AsyncSession(url, TOKEN, concurrency=4) as session:
            for _ in range(3):
                assert (await session.info(f"id{number}" for number in range(100))).ok
            transport = session.statistics().transport
            assert transport is not None
            assert (0, 0, 0) == (transport.in_flight, transport.stuck, transport.replaced)
            assert transport.connections <= 4
    assert opened <= 4


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_surplus_bytes_of_a_reply_answer_no_other_id(concurrency: int) -> None:
    async def handler(stream: SocketStream) -> None:
        while True:
            request = await read_request(stream)
            key = request.split(b" ", 2)[1].rpartition(b"/")[2].decode()
            body = json.dumps(session_object(key)).encode()
            if key.startswith("odd"):
                surplus = reply(json.dumps(session_object("planted")).encode())
                await stream.send(b"HTTP/1.1 304 Not Modified\r\n\r\n" + surplus)
            elif key.startswith("short"):
                await stream.send(reply(body) + b"x")
            else:
                await stream.send(reply(body))

    keys = ["odd1", "a", "short1", "b", "odd2", "c", "short2", "d"]
    async with raw_server(handler) as url:
        async with kaleden.AsyncSession(url, TOKEN, concurrency=concurrency) as session:
            outcomes = await session.info(keys)
    assert {"odd1", "odd2"} == set(outcomes.failures)
    assert {key: key for key in outcomes.successes} == {
        key: info.id for key, info in outcomes.successes.items()
    }


async def test_nothing_is_sent_and_no_socket_left_after_the_session_was_left() -> None:
    seen = 0

    async def handler(stream: SocketStream) -> None:
        nonlocal seen
        while True:
            await read_request(stream)
            seen += 1
            await stream.send(reply(b"[]"))

    async with raw_server(handler) as url:
        for steps in range(2, 27):
            async with anyio.create_task_group() as group:
                async with kaleden.AsyncSession(url, TOKEN, concurrency=4) as session:
                    group.start_soon(session.renew, [f"id{number}" for number in range(8)])
                    for _ in range(steps):
                        await checkpoint()
                # What had arrived by then is read; nothing more comes.
                for _ in range(20):
                    await checkpoint()
                at_the_end = seen
                for _ in range(50):
                    await checkpoint()
                assert at_the_end == seen


@pytest.mark.parametrize(
    ("name", "value"),
    [("NO_PROXY", "[::1"), ("HTTP_PROXY", "ftp://127.0.0.1"), ("SSL_CERT_FILE", "/nonexistent")],
)
async def test_an_environment_that_cannot_be_used_is_told(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(kaleden.ConfigurationError, match=name):
        async with kaleden.AsyncSession("https://example.invalid/skaha"):
            pass


async def check_rest(session: kaleden.AsyncSession) -> None:
    """Nothing is borrowed or stuck, and the next request works at once."""
    state = session.statistics()
    assert state.transport is not None
    assert (0, 0) == (state.gate.in_flight, state.gate.waiting)
    assert (0, 0, 0) == (state.transport.in_flight, state.transport.stuck, state.transport.replaced)
    with anyio.fail_after(10):
        assert (await session.info("next")).ok


@pytest.mark.slow
@pytest.mark.parametrize("anyio_backend", PLAIN_BACKENDS)
@pytest.mark.parametrize(("limit", "trials"), [(1, 20), (8, 130), (32, 50)])
async def test_cancelling_at_any_moment_costs_the_client_nothing(limit: int, trials: int) -> None:
    moments = random.Random(limit)
    async with (
        raw_server(describe) as url,
        kaleden.AsyncSession(url, TOKEN, concurrency=limit) as session,
    ):
        for _ in range(trials):
            async with anyio.create_task_group() as group:
                group.start_soon(session.info, [f"id{number}" for number in range(10_000)])
                for _ in range(moments.randrange(100)):
                    await checkpoint()
                group.cancel_scope.cancel()
            await check_rest(session)


@pytest.mark.slow
async def test_native_cancellation_costs_the_client_nothing(anyio_backend_name: str) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("only asyncio has it")
    moments = random.Random(5)
    async with (
        raw_server(describe) as url,
        kaleden.AsyncSession(url, TOKEN, concurrency=8) as session,
    ):
        for times in [1, 3] * 25:
            for call in (
                session.info([f"id{number}" for number in range(10_000)]),
                session.info("one"),
            ):
                task = asyncio.ensure_future(call)
                for _ in range(moments.randrange(60)):
                    await checkpoint()
                for _ in range(times):
                    task.cancel()
                    await checkpoint()
                await asyncio.wait([task])
                await check_rest(session)


async def test_a_pool_with_a_lost_slot_is_replaced_and_that_is_told() -> None:
    class Stuck:
        """A connection as a cancelled one can be left: never idle, never closed."""

        def is_idle(self) -> bool:
            return False

        def is_closed(self) -> bool:
            return False

    async with raw_server(describe) as url, AsyncExitStack() as stack:
        transport = HttpxTransport(url, f"{url}/v1", TOKEN, connections=4)
        await stack.enter_async_context(transport)
        session = await stack.enter_async_context(kaleden.AsyncSession(transport=transport))
        await session.info("a")
        pool = transport._client._transport._pool  # type: ignore[attr-defined]
        pool._connections.append(stuck := Stuck())
        assert 1 == transport.statistics().stuck
        await session.info("b")
        assert (0, 1) == (transport.statistics().stuck, transport.statistics().replaced)
        assert (await session.info("c")).ok
        assert "0 in flight" in repr(transport)
        pool._connections.remove(stuck)
