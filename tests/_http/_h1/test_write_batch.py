"""Batched writes: all requests are sent, even if one of the tasks is cancelled."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.abc import SocketStream
from anyio.lowlevel import checkpoint

from _http.servers import asked_for, reply
from kaleden._http import DirectTransport
from kaleden._http._h1._connection import Connection
from kaleden._http._h1._write_batch import MAX_BATCH, WriteBatcher
from kaleden._wire import Request
from kaleden._wire._requests import build_info
from support import raw_server, read_request


@asynccontextmanager
async def pairs(count: int) -> AsyncIterator[list[tuple[Connection, socket.socket]]]:
    """Connections, and the other ends of them."""
    async with AsyncExitStack() as stack:
        made = []
        for _ in range(count):
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            theirs.setblocking(False)
            stack.enter_context(theirs)
            connection = Connection(ours, None)
            stack.callback(connection.close)
            made.append((connection, theirs))
        yield made


def came(theirs: socket.socket) -> bytes:
    try:
        return theirs.recv(100)
    except BlockingIOError:
        return b""


async def test_requests_of_one_iteration_are_sent_together() -> None:
    """The first waits for that, and the others go on at once."""
    outbox = WriteBatcher()
    early: list[bytes] = []
    async with pairs(3) as made:

        async def send(connection: Connection, theirs: socket.socket) -> None:
            await outbox.send(connection, b"it")
            early.append(came(theirs))

        async with anyio.create_task_group() as group:
            for pair in made:
                group.start_soon(send, *pair)
        late = [came(theirs) for _, theirs in made]

    assert [b"", b"", b"it"] == early
    assert [b"", b"it", b"it"] == sorted(late)


async def test_next_iteration_has_its_own_batch() -> None:
    outbox = WriteBatcher()
    async with pairs(1) as [(connection, theirs)]:
        for word in (b"one", b"two"):
            await outbox.send(connection, word)
            assert word == came(theirs)


@pytest.mark.parametrize("struck", [0, 1, 2])
async def test_cancelled_task_does_not_stop_the_batch(struck: int) -> None:
    """The requests of other tasks are sent; a closed connection does no harm."""
    outbox = WriteBatcher()
    scopes: list[anyio.CancelScope] = []
    received: list[bytes] = []

    async def send(connection: Connection) -> None:
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            if len(scopes) == 3:
                scopes[struck].cancel()
            try:
                await outbox.send(connection, b"it")
                await checkpoint()
            except BaseException:
                connection.close()
                raise

    async with pairs(3) as made:
        async with anyio.create_task_group() as group:
            for connection, _ in made:
                group.start_soon(send, connection)
        received = [came(theirs) for _, theirs in made]

    assert scopes[struck].cancelled_caught
    assert received.count(b"it") == 2 if struck == 0 else received.count(b"it") >= 2


async def test_cancelled_first_task_does_not_send_its_request() -> None:
    outbox = WriteBatcher()
    async with pairs(2) as [(first, its), (second, others)]:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await outbox.send(first, b"mine")
        assert b"" == came(its)
        await outbox.send(second, b"next")
        assert b"next" == came(others)


@pytest.mark.parametrize("cancelled", [False, True])
async def test_full_batch_is_sent_at_once(cancelled: bool) -> None:
    """The first task then has only later requests left to send."""
    outbox = WriteBatcher()
    early: list[int] = []
    scopes: list[anyio.CancelScope] = []
    async with pairs(MAX_BATCH + 1) as made:

        async def send(connection: Connection) -> None:
            with anyio.CancelScope() as scope:
                scopes.append(scope)
                await outbox.send(connection, b"it")
                if len(scopes) == MAX_BATCH and not early:
                    early.append(sum(came(theirs) == b"it" for _, theirs in made))
                    if cancelled:
                        scopes[0].cancel()

        async with anyio.create_task_group() as group:
            for connection, _ in made:
                group.start_soon(send, connection)
        late = [came(theirs) for _, theirs in made]

    assert [MAX_BATCH] == early
    assert 1 == late.count(b"it")


async def full(connection: Connection, theirs: socket.socket) -> None:
    """Write until the other side must read first."""
    with anyio.CancelScope() as scope:
        while True:
            scope.cancel()
            await connection.write(bytes(2**16))
    assert theirs.recv(1)


@pytest.mark.parametrize("trouble", ["full", "ended", "closed"])
async def test_connection_with_a_partial_write_ends(trouble: str) -> None:
    async with pairs(2) as [(connection, theirs), (other, its)]:
        if trouble == "full":
            await full(connection, theirs)
        elif trouble == "ended":
            theirs.close()
        else:
            connection.close()
        outbox = WriteBatcher()
        async with anyio.create_task_group() as group:
            group.start_soon(outbox.send, connection, bytes(2**16))
            group.start_soon(outbox.send, other, b"whole")
        if trouble != "closed":
            with anyio.fail_after(60):
                assert b"" == await connection.read()
        assert b"whole" == came(its)


async def answer(stream: SocketStream) -> None:
    while True:
        request = await read_request(stream)
        await stream.send(reply(asked_for(request).encode()))


async def test_request_that_a_kept_connection_did_not_accept_is_resent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The bodies show that each response belongs to its own request."""
    keys = [f"key{number}" for number in range(8)]

    async def send(transport: DirectTransport, received: dict[str, bytes], key: str) -> None:
        received[key] = (await transport.send(build_info(key))).body

    async def send_all(transport: DirectTransport) -> dict[str, bytes]:
        received: dict[str, bytes] = {}
        async with anyio.create_task_group() as group:
            for key in keys:
                group.start_soon(send, transport, received, key)
        return received

    def refuse(connection: Any, data: bytes) -> None:
        if any(key in data for key in (b"key2", b"key5")):
            connection._socket.shutdown(socket.SHUT_RDWR)
        else:
            write_or_end(connection, data)

    write_or_end = Connection.write_or_end
    due = {key: key.encode() for key in keys}
    async with (
        raw_server(answer) as url,
        DirectTransport(url, f"{url}/v1", connections=8) as transport,
    ):
        assert due == await send_all(transport)
        monkeypatch.setattr(Connection, "write_or_end", refuse)
        assert due == await send_all(transport)
        assert 8 == transport.statistics().connections


@pytest.mark.parametrize(("count", "together"), [(3, False), (4, True)])
async def test_few_requests_are_not_batched(
    count: int, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []
    write_or_end = Connection.write_or_end

    def noted(connection: Connection, data: bytes) -> None:
        sent.append(data)
        write_or_end(connection, data)

    monkeypatch.setattr(Connection, "write_or_end", noted)
    async with (
        raw_server(answer) as url,
        DirectTransport(url, f"{url}/v1", connections=8) as transport,
    ):
        for _ in range(2):
            async with anyio.create_task_group() as group:
                for number in range(count):
                    group.start_soon(transport.send, build_info(f"key{number}"))
    assert together == bool(sent)


async def test_request_that_is_not_idempotent_is_not_batched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(Connection, "write_or_end")
    post = Request("POST", "session/key", form=b"name=a")
    async with (
        raw_server(answer) as url,
        DirectTransport(url, f"{url}/v1", connections=8) as transport,
    ):
        for _ in range(2):
            async with anyio.create_task_group() as group:
                for _ in range(8):
                    group.start_soon(transport.send, post)
