"""The contract of all transports: responses, errors, and that no connection is lost."""

from __future__ import annotations

import asyncio
import json
import random

import anyio
import pytest
from anyio.abc import SocketStream
from anyio.lowlevel import checkpoint

import kaleden
from _http.servers import TOKEN, Lane, always, asked_for, describe, reply
from kaleden import Failure, FailureKind
from support import PLAIN_BACKENDS, raw_server, read_request, session_object


async def test_requests_have_login_agent_and_no_cookie(lane: Lane) -> None:
    seen: list[bytes] = []

    async def handler(stream: SocketStream) -> None:
        while True:
            seen.append(request := await read_request(stream))
            body = b"k3jd92xa\n" if request.startswith(b"POST") else b"[]"
            await stream.send(reply(body, b"set-cookie: CADC_SSO=tasty; path=/"))

    async with raw_server(handler) as url, lane(url) as session:
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


async def test_no_token_sends_no_header(lane: Lane) -> None:
    seen: list[bytes] = []

    async def handler(stream: SocketStream) -> None:
        seen.append(await read_request(stream))
        await stream.send(reply(b"[]"))

    async with raw_server(handler) as url, lane(url, None) as session:
        assert [] == await session.fetch()
    assert b"authorization" not in seen[0].lower()


@pytest.mark.parametrize(
    ("answer", "kind", "expected"),
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
async def test_unusable_response_is_a_failure(
    lane: Lane, answer: bytes, kind: FailureKind, expected: str
) -> None:
    async with raw_server(always(answer)) as url, lane(url) as session:
        [outcome] = await session.info("a")
        assert isinstance(outcome, Failure)
        assert (kind, True) == (outcome.kind, outcome.sent)
        assert expected in outcome.message
        assert 0 == session.statistics().transport.stuck  # type: ignore[union-attr]
    if kind is FailureKind.UNAVAILABLE:
        assert 30.0 == outcome.retry_after


async def test_refused_connection_sent_nothing(lane: Lane) -> None:
    async with raw_server(describe) as url:
        pass
    async with lane(url) as session:
        outcomes = await session.create("fits", "skaha/astroml:latest", replicas=3)
    assert {(FailureKind.CONNECT_FAILED, False)} == {
        (failure.kind, failure.sent) for failure in outcomes.failures.values()
    }
    assert 3 == len(outcomes)


async def test_endless_response_is_cut_off(lane: Lane) -> None:
    async def handler(stream: SocketStream) -> None:
        await read_request(stream)
        await stream.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await stream.send(b"x" * 1000)

    async with raw_server(handler) as url, lane(url, max_body=10_000) as session:
        for read in (session.info, session.logs):
            [failure] = (await read("a")).failures.values()
            assert FailureKind.PROTOCOL == failure.kind
            assert "10000 bytes" in failure.message
            assert 1 == failure.attempts
        assert 0 == session.statistics().transport.stuck  # type: ignore[union-attr]


async def test_slow_response_is_bounded_as_a_whole(lane: Lane) -> None:
    async def handler(stream: SocketStream) -> None:
        await read_request(stream)
        await stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
        while True:
            await stream.send(b"x")
            await anyio.sleep(0.01)

    async with raw_server(handler) as url, lane(url, timeout=0.2) as session:
        [failure] = (await session.logs("a")).failures.values()
    assert FailureKind.TIMED_OUT == failure.kind


async def test_connections_are_kept_and_never_more_than_the_limit(lane: Lane) -> None:
    opened = 0

    async def handler(stream: SocketStream) -> None:
        nonlocal opened
        opened += 1
        await describe(stream)

    async with raw_server(handler) as url:
        async with lane(url, concurrency=4) as session:
            for _ in range(3):
                assert (await session.info(f"id{number}" for number in range(100))).ok
            transport = session.statistics().transport
            assert transport is not None
            assert (0, 0) == (transport.in_flight, transport.stuck)
            assert transport.connections <= 4
    assert opened <= 4


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_excess_bytes_answer_no_other_request(lane: Lane, concurrency: int) -> None:
    async def handler(stream: SocketStream) -> None:
        while True:
            request = await read_request(stream)
            key = asked_for(request)
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
        async with lane(url, concurrency=concurrency) as session:
            outcomes = await session.info(keys)
    # Bytes after a complete response may come after it was returned.
    assert {"odd1", "odd2"} <= set(outcomes.failures) <= {"odd1", "odd2", "short1", "short2"}
    assert {key: key for key in outcomes.successes} == {
        key: info.id for key, info in outcomes.successes.items()
    }


async def test_closed_session_sends_nothing_and_leaves_no_socket(lane: Lane) -> None:
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
                async with lane(url, concurrency=4) as session:
                    group.start_soon(session.renew, [f"id{number}" for number in range(8)])
                    for _ in range(steps):
                        await checkpoint()
                # Requests that had arrived are read; no more come.
                for _ in range(20):
                    await checkpoint()
                at_the_end = seen
                for _ in range(50):
                    await checkpoint()
                assert at_the_end == seen


async def check_rest(session: kaleden.AsyncSession) -> None:
    """Nothing is borrowed or stuck, and the next request works at once."""
    state = session.statistics()
    assert state.transport is not None
    assert (0, 0) == (state.limiter.in_flight, state.limiter.waiting)
    assert (0, 0) == (state.transport.in_flight, state.transport.stuck)
    with anyio.fail_after(60):
        assert (await session.info("next")).ok


@pytest.mark.slow
@pytest.mark.parametrize("anyio_backend", PLAIN_BACKENDS)
@pytest.mark.parametrize(("limit", "trials"), [(1, 20), (8, 60), (32, 30)])
async def test_cancellation_at_any_time_costs_the_client_nothing(
    lane: Lane, limit: int, trials: int
) -> None:
    chance = random.Random(limit)
    async with (
        raw_server(describe) as url,
        lane(url, concurrency=limit) as session,
    ):
        for _ in range(trials):
            async with anyio.create_task_group() as group:
                group.start_soon(session.info, [f"id{number}" for number in range(10_000)])
                for _ in range(chance.randrange(100)):
                    await checkpoint()
                group.cancel_scope.cancel()
            await check_rest(session)


@pytest.mark.slow
async def test_native_cancellation_costs_the_client_nothing(
    lane: Lane, anyio_backend_name: str
) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("only asyncio has it")
    chance = random.Random(5)
    async with (
        raw_server(describe) as url,
        lane(url, concurrency=8) as session,
    ):
        for times in [1, 3] * 25:
            for call in (
                session.info([f"id{number}" for number in range(10_000)]),
                session.info("one"),
            ):
                task = asyncio.ensure_future(call)
                for _ in range(chance.randrange(60)):
                    await checkpoint()
                for _ in range(times):
                    task.cancel()
                    await checkpoint()
                await asyncio.wait([task])
                await check_rest(session)
