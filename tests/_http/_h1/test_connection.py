"""A reset connection ends every read, even if bytes came at the same time.

uvloop watches a socket no longer once it is broken, and reports that with its last bytes.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import anyio
import pytest
import trustme

from _http.tls import client_context, server_context
from kaleden._http._h1._connection import Connection


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The two ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    # A reset discards bytes that Nagle's algorithm holds back.
    far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with near, far:
        yield near, far


def reset(far: socket.socket) -> None:
    """Close a socket so that its peer is sent RST."""
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    far.close()


async def read_to_the_end(connection: Connection) -> bytes:
    """Return all that comes before the reset, which must be reported."""
    received = b""
    with anyio.fail_after(60):
        while True:
            try:
                piece = await connection.read()
            except (ConnectionResetError, ssl.SSLEOFError):
                return received
            assert piece, "a reset was taken as an orderly end"
            received += piece


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\n"])
async def test_reset_behind_bytes_is_reported(
    sockets: tuple[socket.socket, socket.socket], sent: bytes
) -> None:
    near, far = sockets
    near.setblocking(False)
    with closing(Connection(near, None)) as connection:
        far.sendall(sent)
        reset(far)
        assert sent == await read_to_the_end(connection)


async def test_reset_between_replies_is_reported(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    near, far = sockets
    near.setblocking(False)
    with closing(Connection(near, None)) as connection:
        far.sendall(b"first")
        assert b"first" == await connection.read()
        assert not connection.is_stale()
        far.sendall(b"second")
        reset(far)
        assert b"second" == await read_to_the_end(connection)
        assert connection.is_stale()


def shake_hands(
    near: socket.socket, far: socket.socket, authority: trustme.CA
) -> tuple[ssl.SSLSocket, ssl.SSLObject, ssl.MemoryBIO]:
    """Begin TLS; return the near end, and the far end with buffers in memory."""
    context = client_context(authority)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_context(authority).wrap_bio(incoming, outgoing, server_side=True)
    with ThreadPoolExecutor(1) as thread:
        client = thread.submit(
            context.wrap_socket, near, server_hostname="127.0.0.1", suppress_ragged_eofs=False
        )
        done = False
        while not done:
            try:
                server.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                pass
            far.sendall(outgoing.read())
            if not done:
                incoming.write(far.recv(2**16))
        return client.result(), server, outgoing


@pytest.mark.parametrize("whole", [b"", b"HTTP/1.1 200 OK\r\n"])
@pytest.mark.parametrize("part", [0, 3, 20])
async def test_reset_behind_part_of_a_record_is_reported(
    sockets: tuple[socket.socket, socket.socket], whole: bytes, part: int
) -> None:
    near, far = sockets
    client, server, records = shake_hands(near, far, trustme.CA())
    client.setblocking(False)
    with closing(Connection(client, None)) as connection:
        if whole:
            server.write(whole)
        far.sendall(records.read())
        server.write(b"more")
        far.sendall(records.read()[:part])
        reset(far)
        assert whole == await read_to_the_end(connection)
