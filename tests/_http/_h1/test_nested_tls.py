"""TLS inside TLS: records that share an outer record, partial writes, and stale connections."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress

import anyio
import pytest

from _http.proxies import proxy_contexts
from kaleden._http._h1._connection import Connection
from kaleden._http._h1._nested_tls import NestedTlsSocket
from support import CheckpointCounter

Wants = (ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Server:
    """The other end of both layers."""

    def __init__(self, theirs: socket.socket) -> None:
        context = proxy_contexts()[0]
        self.outer = context.wrap_socket(theirs, server_side=True, do_handshake_on_connect=False)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.inner = context.wrap_bio(self.incoming, self.outgoing, server_side=True)

    def flush(self) -> None:
        """Send all that the inner layer has written in one outer record."""
        if self.outgoing.pending:
            self.outer.send(self.outgoing.read())

    def read(self) -> bytes:
        """Return the plain text that is there."""
        with suppress(*Wants):
            while True:
                self.incoming.write(self.outer.recv(2**16))
        plain = b""
        with suppress(*Wants):
            while True:
                plain += self.inner.read(2**16)
        return plain


@pytest.fixture
def ends() -> Iterator[tuple[NestedTlsSocket, Server]]:
    """Both ends of a connection that does not block, after both handshakes."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    server = Server(theirs)
    outer = proxy_contexts()[1].wrap_socket(
        ours,
        server_hostname="127.0.0.1",
        do_handshake_on_connect=False,
        suppress_ragged_eofs=False,
    )
    for end in (outer, server.outer) * 3:
        with suppress(*Wants):
            end.do_handshake()
    client = NestedTlsSocket(outer, proxy_contexts()[1], "127.0.0.1")
    for _ in range(4):
        with suppress(*Wants):
            client.do_handshake()
        with suppress(*Wants):
            server.incoming.write(server.outer.recv(2**16))
        with suppress(*Wants):
            server.inner.do_handshake()
        server.flush()
    yield client, server
    client.close()
    server.outer.close()


async def test_records_that_share_an_outer_record_are_all_read(
    ends: tuple[NestedTlsSocket, Server],
) -> None:
    client, server = ends
    connection = Connection(client, None)
    for piece in (b"one", b"two", b"three"):
        server.inner.write(piece)
    with suppress(*Wants):
        server.inner.unwrap()
    server.flush()
    with anyio.fail_after(60):
        assert [b"one", b"two", b"three", b""] == [await connection.read() for _ in range(4)]


async def test_idle_connection_with_a_record_in_memory_is_stale(
    ends: tuple[NestedTlsSocket, Server],
) -> None:
    client, server = ends
    connection = Connection(client, None)
    server.inner.write(b"one")
    server.inner.write(b"excess")
    server.flush()
    assert b"one" == await connection.read()
    assert connection.is_stale()


async def test_server_that_always_has_more_to_send_leaves_time_to_other_tasks(
    ends: tuple[NestedTlsSocket, Server],
) -> None:
    client, server = ends
    connection = Connection(client, None)
    for _ in range(50):
        server.inner.write(b"more")
    server.flush()
    turns = CheckpointCounter()
    async with anyio.create_task_group() as group:
        group.start_soon(turns.run)
        with anyio.fail_after(60):
            for _ in range(50):
                assert b"more" == await connection.read()
        group.cancel_scope.cancel()
    assert 40 <= turns.count


async def test_read_takes_one_piece_at_a_time(ends: tuple[NestedTlsSocket, Server]) -> None:
    client, server = ends
    with suppress(*Wants):
        client.recv(1)
    server.inner.write(b"x" * 100)
    record = server.outgoing.read()
    for begin in range(0, len(record), 10):
        server.outer.send(record[begin : begin + 10])
    for _ in range(0, len(record) - 10, 10):
        with pytest.raises(ssl.SSLWantReadError):
            client.recv(2**16)
    assert b"x" * 100 == client.recv(2**16)


async def test_idle_connection_with_bytes_behind_a_part_of_a_record_is_stale(
    ends: tuple[NestedTlsSocket, Server],
) -> None:
    client, server = ends
    connection = Connection(client, None)
    server.inner.write(b"planted")
    record = server.outgoing.read()
    server.outer.send(record[:10])
    server.outer.send(record[10:])
    assert connection.is_stale()


async def test_idle_connection_is_not_stale_because_of_a_session_ticket(
    ends: tuple[NestedTlsSocket, Server],
) -> None:
    client, _ = ends
    assert not Connection(client, None).is_stale()


async def test_end_of_the_outer_layer_alone_is_a_truncation(
    ends: tuple[NestedTlsSocket, Server],
) -> None:
    client, server = ends
    connection = Connection(client, None)
    server.inner.write(b"one")
    server.flush()
    with suppress(*Wants):
        server.outer.unwrap()
    assert b"one" == await connection.read()
    with pytest.raises(ssl.SSLError, match=r"(?i)eof"):
        await connection.read()


async def test_long_write_waits_for_a_full_socket(ends: tuple[NestedTlsSocket, Server]) -> None:
    client, server = ends
    connection = Connection(client, None)
    data = bytes(range(256)) * 2**13
    received = b""

    async def drain() -> None:
        nonlocal received
        while len(received) < len(data):
            await anyio.wait_readable(server.outer)
            received += server.read()

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(connection.write, data)
            group.start_soon(drain)
    assert data == received


async def test_connection_that_does_not_accept_all_at_once_ends(
    ends: tuple[NestedTlsSocket, Server],
) -> None:
    client, _ = ends
    connection = Connection(client, None)
    connection.write_or_end(bytes(2**22))
    with pytest.raises(ssl.SSLError, match=r"(?i)eof"):
        while await connection.read():
            pass
