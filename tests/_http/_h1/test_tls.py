"""TLS: contexts, certificates, and the errors of connections that cannot be made."""

from __future__ import annotations

import os
import socket
import ssl
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import anyio
import anyio.to_thread
import pytest
import trustme
from anyio.abc import SocketStream

from _http.tls import FakeTls, client_context, server_context, tls_server
from kaleden import FailureKind
from kaleden._http import DirectTransport, TransportError
from kaleden._http._h1._connection import Connection
from kaleden._http._httpx_adapter import HttpxTransport
from kaleden._wire._requests import build_info
from support import raw_server

GET = build_info("a")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def refuse_one(listener: socket.socket, context: ssl.SSLContext) -> None:
    """Fail one handshake as a server does: with an alert, which the client has time to read."""
    connected, _ = listener.accept()
    with context.wrap_socket(connected, server_side=True, do_handshake_on_connect=False) as wrapped:
        with suppress(ssl.SSLError):
            wrapped.do_handshake()
        wrapped.shutdown(socket.SHUT_WR)
        while os.read(wrapped.fileno(), 1000):
            pass


def transport_to(url: str, context: ssl.SSLContext, connections: int = 4) -> DirectTransport:
    return DirectTransport(url, f"{url}/v1", tls=FakeTls(context), connections=connections)


async def failing(url: str, context: ssl.SSLContext) -> TransportError:
    async with transport_to(url, context) as transport:
        with pytest.raises(TransportError) as caught:
            await transport.send(GET)
        assert (0, 0) == (transport.statistics().stuck, transport.statistics().connections)
    return caught.value


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_requests_over_tls(authority: trustme.CA, version: ssl.TLSVersion) -> None:
    context = client_context(authority)
    context.maximum_version = version
    async with tls_server(server_context(authority)) as url:
        async with transport_to(url, context) as transport:
            async with anyio.create_task_group() as group:
                for _ in range(40):
                    group.start_soon(transport.send, GET)
            assert b"{}" == (await transport.send(GET)).body
            assert 4 >= transport.statistics().connections


async def test_client_certificate_is_shown(authority: trustme.CA) -> None:
    demanding = server_context(authority)
    demanding.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(demanding)
    knowing = client_context(authority)
    authority.issue_cert("me@example.org").configure_cert(knowing)
    async with tls_server(demanding) as url, transport_to(url, knowing) as transport:
        assert 200 == (await transport.send(GET)).status


@pytest.mark.parametrize(
    ("version", "shown", "expected"),
    [
        (ssl.TLSVersion.TLSv1_3, "nothing", "client's certificate"),
        (ssl.TLSVersion.TLSv1_3, "a stranger's", "client's certificate"),
        (ssl.TLSVersion.TLSv1_2, "a stranger's", "client's certificate"),
        # TLS 1.2 has no alert for it.
        (ssl.TLSVersion.TLSv1_2, "nothing", "handshake failure"),
    ],
)
async def test_refused_client_certificate_is_reported(
    authority: trustme.CA, version: ssl.TLSVersion, shown: str, expected: str
) -> None:
    demanding = server_context(authority)
    demanding.verify_mode = ssl.CERT_REQUIRED
    demanding.maximum_version = version
    authority.configure_trust(demanding)
    context = client_context(authority)
    if shown != "nothing":
        trustme.CA().issue_cert("me@example.org").configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/skaha"
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, refuse_one, listener, demanding)
            error = await failing(url, context)
    assert (FailureKind.CONNECT_FAILED, False) == (error.kind, error.sent)
    assert error.final
    assert expected in error.message


async def test_untrusted_server_is_reported(authority: trustme.CA) -> None:
    async with tls_server(server_context(authority)) as url:
        error = await failing(url, ssl.create_default_context())
    assert (FailureKind.CONNECT_FAILED, False) == (error.kind, error.sent)
    assert error.final
    assert "not trusted" in error.message
    assert "issuer" in error.message


async def test_untrusted_server_is_final_over_httpx(
    authority: trustme.CA,
) -> None:
    tls = FakeTls(ssl.create_default_context())
    async with (
        tls_server(server_context(authority)) as url,
        HttpxTransport(url, f"{url}/v1", tls=tls, connections=1) as transport,
    ):
        with pytest.raises(TransportError) as caught:
            await transport.send(GET)
    assert (FailureKind.CONNECT_FAILED, False) == (caught.value.kind, caught.value.sent)
    assert caught.value.final


async def test_certificate_of_another_host_is_reported(authority: trustme.CA) -> None:
    async with tls_server(server_context(authority, "other.example")) as url:
        error = await failing(url, client_context(authority))
    assert (FailureKind.CONNECT_FAILED, False) == (error.kind, error.sent)
    assert error.final
    assert "mismatch" in error.message


async def test_expired_certificate_is_reported(authority: trustme.CA) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    yesterday = datetime.now(UTC) - timedelta(days=1)
    authority.issue_cert(
        "127.0.0.1", not_before=yesterday - timedelta(days=1), not_after=yesterday
    ).configure_cert(context)
    async with tls_server(context) as url:
        error = await failing(url, client_context(authority))
    assert (FailureKind.CONNECT_FAILED, False) == (error.kind, error.sent)
    assert error.final
    assert "expired" in error.message


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
async def test_server_without_tls_is_reported(authority: trustme.CA, answer: bytes) -> None:
    async def handler(stream: SocketStream) -> None:
        await stream.receive()
        if answer:
            await stream.send(answer)

    async with raw_server(handler) as url:
        error = await failing(url.replace("http:", "https:"), client_context(authority))
    assert (FailureKind.CONNECT_FAILED, False) == (error.kind, error.sent)
    # A connection that just ends may be anything.
    assert bool(answer) == error.final
    assert "TLS" in error.message


async def test_context_that_offers_another_protocol_is_reported(authority: trustme.CA) -> None:
    serving, context = server_context(authority), client_context(authority)
    serving.set_alpn_protocols(["h2"])
    context.set_alpn_protocols(["h2", "http/1.1"])
    async with tls_server(serving) as url:
        error = await failing(url, context)
    assert (FailureKind.CONNECT_FAILED, False) == (error.kind, error.sent)
    assert error.final
    assert "offers h2" in error.message


async def test_connection_made_with_an_older_context_is_not_used_again(
    authority: trustme.CA,
) -> None:
    tls = FakeTls(client_context(authority))
    async with tls_server(server_context(authority)) as url:
        async with DirectTransport(url, f"{url}/v1", tls=tls, connections=2) as transport:
            await transport.send(GET)
            [old] = transport._pool._open
            await transport.send(GET)
            assert {old} == transport._pool._open
            tls.now = client_context(authority)
            await transport.send(GET)
            assert old not in transport._pool._open
            assert 1 == transport.statistics().connections


async def test_unavailable_context_is_the_failure(authority: trustme.CA) -> None:
    class Broken:
        async def context(self) -> ssl.SSLContext:
            raise TransportError(FailureKind.NOT_AUTHENTICATED, "expired", sent=False)

    url = "https://127.0.0.1:1/skaha"
    async with DirectTransport(url, url, tls=Broken(), connections=1) as transport:
        with pytest.raises(TransportError, match="expired"):
            await transport.send(GET)
        assert 0 == transport.statistics().in_flight


def shaken(authority: trustme.CA) -> tuple[ssl.SSLSocket, ssl.SSLSocket]:
    """Both ends of a connection, ours first, that do not block and have agreed on TLS."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    client = client_context(authority).wrap_socket(
        ours,
        server_hostname="127.0.0.1",
        do_handshake_on_connect=False,
        suppress_ragged_eofs=False,
    )
    server = server_context(authority).wrap_socket(
        theirs, server_side=True, do_handshake_on_connect=False
    )
    for end in (client, server, client):
        with suppress(ssl.SSLWantReadError):
            end.do_handshake()
    return client, server


async def test_connection_with_a_partial_write_is_never_read_without_tls(
    authority: trustme.CA,
) -> None:
    """Bytes are returned only if they came under TLS."""
    client, server = shaken(authority)
    connection = Connection(client, client.context)
    with server:
        server.send(b"sent by the server")
        connection.write_or_end(bytes(2**22))
        received: list[bytes] = []
        with pytest.raises(ssl.SSLError, match=r"(?i)eof"):
            while not received or received[-1]:
                received.append(await connection.read())
    # Not every system returns the bytes that came before.
    assert received in ([], [b"sent by the server"])
    connection.close()
