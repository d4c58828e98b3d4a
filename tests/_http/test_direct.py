"""The direct transport: reuse of connections, and requests that are sent again or never."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.abc import SocketStream
from anyio.lowlevel import checkpoint
from attrs import define, field

from _http.servers import FakeBearer, asked_for, describe, reply
from kaleden import FailureKind, InvalidRequest
from kaleden._http import DirectTransport, TransportError
from kaleden._http._h1 import _connect
from kaleden._http._h1._connection import Connection
from kaleden._http._h1._pool import Origin, Pool
from kaleden._http._h1._request_writer import RequestWriter, origin_of
from kaleden._wire import Request
from kaleden._wire._requests import build_info
from support import Handler, raw_server, read_request, session_object

GET = build_info("a")
DELETE = Request("DELETE", "session/a")
POST = Request("POST", "session", form=b"name=a")
OK = reply(b"{}")


@define
class Script:
    """A server that counts connections, and sends the responses of a function.

    *answer* gets the number of the connection and of the request on it, both from 0, and returns
    the response. None closes the connection.
    """

    answer: Callable[[int, int], bytes | None]
    connections: int = 0
    requests: list[bytes] = field(factory=list)
    together: int = 0
    most_together: int = 0

    async def serve(self, stream: SocketStream) -> None:
        connection = self.connections
        self.connections += 1
        number = 0
        while True:
            request = await read_request(stream)
            self.requests.append(request)
            self.together += 1
            self.most_together = max(self.together, self.most_together)
            await checkpoint()
            self.together -= 1
            answer = self.answer(connection, number)
            if answer is None:
                return
            await stream.send(answer)
            number += 1


@asynccontextmanager
async def opened(handler: Handler, **options: Any) -> AsyncIterator[DirectTransport]:
    async with raw_server(handler) as url:
        options = {"connections": 4, **options}
        async with DirectTransport(url, f"{url}/v1", **options) as transport:
            yield transport


async def failing(transport: DirectTransport, request: Request) -> TransportError:
    with pytest.raises(TransportError) as caught:
        await transport.send(request)
    return caught.value


async def test_connection_is_used_again() -> None:
    script = Script(lambda *_: OK)
    async with opened(script.serve) as transport:
        for _ in range(3):
            assert 200 == (await transport.send(GET)).status
        state = transport.statistics()
    assert 1 == script.connections
    assert (0, 1, 0) == (state.in_flight, state.connections, state.stuck)
    assert 0 == transport.statistics().connections


@pytest.mark.parametrize(
    "answer",
    [reply(b"{}", b"connection: close"), OK.replace(b"1.1", b"1.0"), b"HTTP/1.1 200 OK\r\n\r\n{}"],
)
async def test_connection_that_the_server_ends_is_not_used_again(answer: bytes) -> None:
    async def handler(stream: SocketStream) -> None:
        await read_request(stream)
        await stream.send(answer)

    async with opened(handler) as transport:
        for _ in range(2):
            assert b"{}" == (await transport.send(GET)).body
            assert 0 == transport.statistics().connections


@pytest.mark.parametrize("request_", [GET, DELETE, POST])
async def test_connection_that_was_closed_while_idle_is_noticed(request_: Request) -> None:
    """Even a POST can then be sent: nothing of it went out on the old one."""
    closed = anyio.Event()

    async def handler(stream: SocketStream) -> None:
        await read_request(stream)
        await stream.send(OK)
        await stream.send_eof()
        closed.set()

    async with opened(handler) as transport:
        await transport.send(GET)
        await closed.wait()
        assert 200 == (await transport.send(request_)).status


@pytest.mark.parametrize("surplus", [b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b"x"])
async def test_connection_with_excess_bytes_is_not_used_again(surplus: bytes) -> None:
    answered, sent = anyio.Event(), anyio.Event()

    async def handler(stream: SocketStream) -> None:
        await read_request(stream)
        await stream.send(OK)
        await answered.wait()
        await stream.send(surplus)
        sent.set()
        await stream.receive()

    async with opened(handler) as transport:
        await transport.send(GET)
        answered.set()
        await sent.wait()
        assert b"{}" == (await transport.send(GET)).body


@pytest.mark.parametrize("request_", [GET, DELETE])
async def test_idempotent_request_is_resent_on_a_new_connection(request_: Request) -> None:
    script = Script(lambda _connection, number: OK if number == 0 else None)
    async with opened(script.serve) as transport:
        await transport.send(GET)
        assert 200 == (await transport.send(request_)).status
    assert (2, 3) == (script.connections, len(script.requests))


async def test_post_is_never_sent_twice() -> None:
    script = Script(lambda _connection, number: OK if number == 0 else None)
    async with opened(script.serve) as transport:
        await transport.send(GET)
        error = await failing(transport, POST)
    assert (FailureKind.CONNECTION_LOST, True) == (error.kind, error.sent)
    assert 2 == len(script.requests)


async def test_request_is_not_resent_after_the_first_byte_of_a_response() -> None:
    script = Script(lambda *_: OK)

    async def handler(stream: SocketStream) -> None:
        for answer in (OK, b"H"):
            script.requests.append(await read_request(stream))
            await stream.send(answer)

    async with opened(handler) as transport:
        await transport.send(GET)
        error = await failing(transport, GET)
    assert FailureKind.CONNECTION_LOST is error.kind
    assert 2 == len(script.requests)


async def test_request_on_a_new_connection_is_not_resent() -> None:
    script = Script(lambda *_: None)
    async with opened(script.serve) as transport:
        assert FailureKind.CONNECTION_LOST is (await failing(transport, GET)).kind
    assert 1 == len(script.requests)


async def test_request_is_resent_once_only() -> None:
    script = Script(lambda connection, number: OK if connection == number == 0 else None)
    async with opened(script.serve) as transport:
        await transport.send(GET)
        assert FailureKind.CONNECTION_LOST is (await failing(transport, GET)).kind
    assert 3 == len(script.requests)


async def test_refused_token_is_renewed_and_the_request_sent_once_more() -> None:
    script = Script(lambda _connection, number: OK if number else reply(b"", status=b"401 No"))
    async with opened(script.serve, bearer=FakeBearer(["old", "new"])) as transport:
        assert 200 == (await transport.send(POST)).status
    first, second = script.requests
    assert b"Authorization: Bearer old\r\n" in first
    assert first == second.replace(b"Bearer new", b"Bearer old")


@pytest.mark.parametrize(("tokens", "times"), [(["one"], 1), (["one", "two", "three"], 2)])
async def test_second_401_is_the_response(tokens: list[str], times: int) -> None:
    script = Script(lambda *_: reply(b"no", status=b"401 No"))
    async with opened(script.serve, bearer=FakeBearer(list(tokens))) as transport:
        assert 401 == (await transport.send(GET)).status
    assert times == len(script.requests)


async def test_connections_stay_within_the_limit() -> None:
    script = Script(lambda *_: OK)
    async with opened(script.serve, connections=3) as transport:
        async with anyio.create_task_group() as group:
            for _ in range(40):
                group.start_soon(transport.send, GET)
        assert 3 >= transport.statistics().connections
    assert (3, 40) == (script.connections, len(script.requests))
    assert script.most_together <= 3


async def test_early_refusal_of_a_large_form_is_the_response() -> None:
    async def handler(stream: SocketStream) -> None:
        await stream.receive(10)
        await stream.send(reply(b"too large", b"connection: close", status=b"413 Large"))
        await stream.send_eof()
        while True:
            await stream.receive()

    async with opened(handler) as transport:
        response = await transport.send(Request("POST", "session", form=b"x" * 4_000_000))
        assert (413, b"too large") == (response.status, response.body)


async def test_connect_timeout_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def never(address: object) -> socket.socket:
        await anyio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(_connect, "_connect", never)
    monkeypatch.setattr("kaleden._http._direct.CONNECT_TIMEOUT", 0.01)
    async with opened(describe) as transport:
        error = await failing(transport, GET)
    assert (FailureKind.CONNECT_FAILED, False) == (error.kind, error.sent)
    assert "within 0.01 seconds" in error.message


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 70 + ".example"])
async def test_unknown_host_is_reported(host: str) -> None:
    async with DirectTransport(f"http://{host}", f"http://{host}/v1", connections=1) as transport:
        error = await failing(transport, GET)
    assert (FailureKind.CONNECT_FAILED, False) == (error.kind, error.sent)


async def test_ipv6_server_is_reached() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    script = Script(lambda *_: OK)
    async with (
        raw_server(script.serve, "::1") as url,
        DirectTransport(url, url, connections=1) as transport,
    ):
        assert 200 == (await transport.send(GET)).status
    assert b"Host: [::1]:" in script.requests[0]


def test_address_families_alternate() -> None:
    six, four = socket.AF_INET6, socket.AF_INET
    found = [(six, 1), (six, 2), (six, 3), (four, 4)]
    assert [(six, 1), (four, 4), (six, 2), (six, 3)] == _connect._interleave(found)


@pytest.mark.parametrize("first", ["stalls", "fails"])
async def test_next_address_is_tried_beside_a_stalled_one(
    monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    truly = _connect._connect
    tried: list[object] = []

    async def connect(address: Any) -> socket.socket:
        tried.append(address)
        if len(tried) == 1 and first == "stalls":
            await anyio.sleep_forever()
        if len(tried) == 1:
            raise ConnectionRefusedError
        return await truly(address)

    async def addresses(host: str, port: int) -> list[_connect.Address]:
        return [(socket.AF_INET, ("127.0.0.1", port))] * 3

    monkeypatch.setattr(_connect, "_connect", connect)
    monkeypatch.setattr(_connect, "_look_up", addresses)
    monkeypatch.setattr(_connect, "STAGGER", 0.01 if first == "stalls" else 1000)
    async with opened(describe) as transport:
        assert 200 == (await transport.send(GET)).status
    assert len(tried) >= 2


async def test_failure_of_all_addresses_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    async def connect(address: object) -> socket.socket:
        raise ConnectionRefusedError(111, "refused")

    async def addresses(host: str, port: int) -> list[_connect.Address]:
        return [(socket.AF_INET, ("127.0.0.1", port))] * 2

    monkeypatch.setattr(_connect, "_connect", connect)
    monkeypatch.setattr(_connect, "_look_up", addresses)
    async with opened(describe) as transport:
        assert "refused" in (await failing(transport, GET)).message


async def test_concurrent_dials_share_a_look_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_up: list[str] = []
    fails = True

    async def look_up(host: str, port: int) -> list[_connect.Address]:
        looked_up.append(host)
        await checkpoint()
        if fails:
            raise socket.gaierror("no such host")
        return [(socket.AF_INET, ("127.0.0.1", port))]

    monkeypatch.setattr(_connect, "_look_up", look_up)
    async with opened(describe) as transport:
        assert "no such host" in (await failing(transport, GET)).message
        fails = False
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(transport.send, GET)
        assert 2 == len(looked_up)
        assert not transport._dialer._lookups


async def test_concurrent_dials_share_the_failure_of_a_look_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_up: list[str] = []
    waiting = anyio.Event()

    async def look_up(host: str, port: int) -> list[_connect.Address]:
        looked_up.append(host)
        await waiting.wait()
        raise socket.gaierror(socket.EAI_NONAME, "no such host")

    monkeypatch.setattr(_connect, "_look_up", look_up)
    messages: list[str] = []

    async def fail(transport: DirectTransport) -> None:
        messages.append((await failing(transport, GET)).message)

    async with opened(describe) as transport:
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(fail, transport)
            await anyio.wait_all_tasks_blocked()
            waiting.set()
        assert (4, 1) == (len(messages), len(looked_up))
        assert all("no such host" in message for message in messages)
        assert not transport._dialer._lookups


async def check_rest(transport: DirectTransport) -> None:
    state = transport.statistics()
    assert (0, 0) == (state.in_flight, state.stuck)
    assert state.connections == idle_count(transport._pool)
    with anyio.fail_after(60):
        assert 200 == (await transport.send(GET)).status


async def test_cancelling_at_every_step_loses_no_connection() -> None:
    async with opened(describe, connections=2) as transport:
        for steps in range(40):
            async with anyio.create_task_group() as group:
                for request in (GET, POST, GET):
                    group.start_soon(transport.send, request)
                for _ in range(steps):
                    await checkpoint()
                group.cancel_scope.cancel()
            await check_rest(transport)


async def test_native_cancellation_at_every_step_loses_no_connection(
    anyio_backend_name: str,
) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("only asyncio has it")
    async with opened(describe, connections=2) as transport:
        for steps in range(40):
            for times in (1, 3):
                tasks = [asyncio.ensure_future(transport.send(GET)) for _ in range(3)]
                for _ in range(steps):
                    await checkpoint()
                for _ in range(times):
                    for task in tasks:
                        task.cancel()
                    await checkpoint()
                await asyncio.wait(tasks)
                await check_rest(transport)


@pytest.mark.parametrize("cancelled", [0, 1, 2])
async def test_slot_of_a_cancelled_task_goes_to_the_next(cancelled: int) -> None:
    slots = Pool(1, keep=1).slots
    await slots.acquire()
    scopes = [anyio.CancelScope() for _ in range(3)]
    got: list[int] = []

    async def use(number: int) -> None:
        with scopes[number]:
            await slots.acquire()
            got.append(number)
            slots.release()

    async with anyio.create_task_group() as group:
        for number in range(3):
            group.start_soon(use, number)
        await anyio.wait_all_tasks_blocked()
        slots.release()
        scopes[cancelled].cancel()
    assert {0, 1, 2} - {cancelled} <= set(got)
    with anyio.fail_after(60):
        await slots.acquire()


class FakeConnection(Connection):  # type: ignore[misc]
    """A connection without a socket."""

    def __init__(self) -> None:
        self.context = None
        self.reused = False
        self.idle_since = 0.0
        self.closed = False

    def is_stale(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True


def test_connection_can_be_closed_after_its_event_loop() -> None:
    ours, theirs = socket.socketpair()

    async def connect() -> Connection:
        ours.setblocking(False)
        return Connection(ours, None)

    with theirs:
        connection = asyncio.run(connect())
        connection.close()
        assert b"" == theirs.recv(1)


HERE = Origin("http", "here.example", 80)
THERE = Origin("http", "there.example", 80)


async def filled(pool: Pool, *origins: Origin) -> list[FakeConnection]:
    made = []

    async def dial() -> Connection:
        made.append(FakeConnection())
        return made[-1]

    for _ in origins:
        pool.slots.acquire_nowait()
        await pool.add(dial)
    for origin, connection in zip(origins, made, strict=True):
        pool.release(origin, connection)
        pool.slots.release()
    return made


async def test_connection_used_last_is_used_next_and_old_ones_are_closed() -> None:
    now = 100.0
    pool = Pool(4, keep=4, expiry=10.0, clock=lambda: now)
    first, second, third = await filled(pool, HERE, HERE, HERE)
    assert third is pool.acquire(HERE, None)
    now = 105.0
    pool.release(HERE, third)
    now = 111.0
    assert third is pool.acquire(HERE, None)
    assert None is pool.acquire(HERE, None)
    assert (True, True, False) == (first.closed, second.closed, third.closed)
    assert (1, 0) == (pool.open_count, idle_count(pool))


async def test_connection_is_for_its_origin_only_and_the_oldest_makes_room() -> None:
    now = 100.0
    pool = Pool(2, keep=2, clock=lambda: now)
    [here] = await filled(pool, HERE)
    now = 101.0
    [there] = await filled(pool, THERE)
    assert None is pool.acquire(Origin("https", "here.example", 80), None)
    await filled(pool, THERE)
    assert (True, False, 2) == (here.closed, there.closed, pool.open_count)
    await filled(pool, HERE, HERE)
    assert (True, 2) == (there.closed, pool.open_count)


def idle_count(pool: Pool) -> int:
    return pool.open_count - pool.in_use_count


async def test_origin_whose_connections_are_all_in_use_has_none_to_make_room() -> None:
    pool = Pool(4, keep=1)
    [here] = await filled(pool, HERE)
    assert here is pool.acquire(HERE, None)
    first, second = await filled(pool, THERE, THERE)
    assert (True, False, 1) == (first.closed, second.closed, idle_count(pool))
    pool.release(HERE, here)
    assert (False, True, 1) == (here.closed, second.closed, idle_count(pool))


async def test_idle_connections_stay_within_the_limit() -> None:
    pool = Pool(4, keep=1)
    first, second = await filled(pool, HERE, HERE)
    assert (True, False, 1) == (first.closed, second.closed, idle_count(pool))
    pool.close()
    assert (True, 0) == (second.closed, pool.open_count)
    [late] = await filled(pool, HERE)
    assert late.closed


@pytest.mark.parametrize(
    ("url", "origin", "host"),
    [
        ("http://a.example/skaha", ("http", "a.example", 80), "a.example"),
        ("https://A.example:443/skaha", ("https", "a.example", 443), "A.example"),
        ("https://a.example:8443/skaha", ("https", "a.example", 8443), "a.example:8443"),
        ("http://[::1]/skaha", ("http", "::1", 80), "[::1]"),
    ],
)
def test_request_line_and_headers_are_written(
    url: str, origin: tuple[str, str, int], host: str
) -> None:
    heads = RequestWriter(url, f"{url}/v1")
    lines = heads.write(GET, "tok").decode().split("\r\n")
    assert origin == origin_of(url)
    assert "GET /skaha/v1/session/a HTTP/1.1" == lines[0]
    assert f"Host: {host}" == lines[1]
    assert "Authorization: Bearer tok" in lines
    assert ["", ""] == lines[-2:]
    assert b"Authorization" not in heads.write(GET, None)
    unversioned = heads.write(Request("GET", "availability", versioned=False), None)
    assert unversioned.startswith(b"GET /skaha/availability HTTP/1.1\r\n")


def test_form_and_headers_are_written() -> None:
    request = Request("POST", "session", form=b"a=1", headers=(("x-skaha-registry-auth", "dTpw"),))
    written = RequestWriter("http://a", "http://a/v1").write(request, None)
    assert b"x-skaha-registry-auth: dTpw\r\n" in written
    assert b"Content-Length: 3\r\n\r\na=1" in written


@pytest.mark.parametrize(
    "request_",
    [
        Request("GET", "session/a\r\nX: y"),
        Request("GET", "session/a b"),
        Request("GET", "session/\xe9"),
        Request("GET", "session", headers=(("a", "b\r\nc: d"),)),
        Request("GET", "session", headers=(("a\n", "b"),)),
    ],
)
def test_line_break_in_a_request_is_refused(request_: Request) -> None:
    with pytest.raises(InvalidRequest):
        RequestWriter("http://a", "http://a/v1").write(request_, None)


async def test_server_that_closes_after_each_byte_is_an_error() -> None:
    whole = reply(json.dumps(session_object("a")).encode(), b"content-type: application/json")

    async def handler(stream: SocketStream) -> None:
        cut = int(asked_for(await read_request(stream)))
        await stream.send(whole[:cut]) if cut else None

    async with opened(handler) as transport:
        for cut in range(len(whole)):
            error = await failing(transport, build_info(str(cut)))
            assert (FailureKind.CONNECTION_LOST, True) == (error.kind, error.sent), cut
        assert 200 == (await transport.send(build_info(str(len(whole))))).status
        assert 0 == transport.statistics().stuck
