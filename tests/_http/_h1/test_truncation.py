"""A response over TLS that ends without ``close_notify`` is not complete (RFC 9112 §9.8).

All tests here run as on Python 3.11.2, where a new context ignores the missing alert.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from anyio.abc import SocketAttribute
from anyio.streams.tls import TLSStream
from attrs import define

pytest.importorskip("anycorn")

import kaleden
import kaleden.local._listener
from _http.proxies import ESTABLISHED, open_proxy, proxy_authority, proxy_contexts, receive_head
from _http.tls import server_context, tls_server
from kaleden._auth._tls import make_context
from kaleden._http import _anyio_options, detect_truncation
from kaleden.http import AnyioTransport

IGNORE_TRUNCATION = getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
pytestmark = pytest.mark.skipif(not IGNORE_TRUNCATION, reason="OpenSSL is older than 3.0")


@pytest.fixture(autouse=True)
def old_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every context as Python 3.11.2 does."""
    make = ssl.SSLContext.__new__

    def new(cls: type[ssl.SSLContext], *args: Any, **options: Any) -> ssl.SSLContext:
        context = make(cls, *args, **options)
        context.options |= IGNORE_TRUNCATION
        return context

    monkeypatch.setattr(ssl.SSLContext, "__new__", staticmethod(new))


@pytest.fixture
def authority(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> trustme.CA:
    """An authority that the environment trusts."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return authority


async def truncate(stream: TLSStream) -> None:
    """Send a response that ends with its connection, and close the socket below TLS."""
    await stream.receive()
    await stream.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nhel")
    # A duplicate, since uvloop's own object cannot be shut down.
    with socket.socket(fileno=os.dup(stream.extra(SocketAttribute.raw_socket).fileno())) as raw:
        raw.shutdown(socket.SHUT_RDWR)


@pytest.fixture
async def truncating_url(authority: trustme.CA) -> AsyncIterator[str]:
    """A server over TLS that sends part of a response."""
    async with tls_server(server_context(authority), truncate) as url:
        yield url


async def read_log(url: str, **options: Any) -> kaleden.Outcome[str]:
    """Ask for the log of one session, in one attempt."""
    async with kaleden.AsyncSession(url, retry=None, **options) as session:
        [outcome] = await session.logs("a")
    return outcome


def check_lost(outcome: kaleden.Outcome[str]) -> None:
    assert isinstance(outcome, kaleden.Failure), outcome
    assert kaleden.FailureKind.CONNECTION_LOST is outcome.kind


@define
class TruncatingProxy:
    """Opens a tunnel, and ends one layer of its TLS without ``close_notify``."""

    layer: str

    async def serve(self, stream: TLSStream) -> None:
        await receive_head(stream)
        await stream.send(ESTABLISHED)
        inner = await TLSStream.wrap(stream, server_side=True, ssl_context=proxy_contexts()[0])
        if self.layer == "outer":
            await truncate(inner)
            return

        await inner.receive()
        await inner.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nhel")
        # The proxy ends its own layer properly.
        await stream.aclose()


@pytest.mark.parametrize("layer", ["inner", "outer"])
async def test_reply_that_is_truncated_in_a_tunnel_is_a_lost_connection(
    layer: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    proxy_authority().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    async with open_proxy(TruncatingProxy(layer), "https") as proxy:
        check_lost(await read_log("https://127.0.0.1:1/skaha", token="secret", proxy=proxy.url))


def test_new_context_ignores_truncation_here() -> None:
    assert ssl.create_default_context().options & IGNORE_TRUNCATION


async def test_truncated_reply_is_a_lost_connection(truncating_url: str) -> None:
    check_lost(await read_log(truncating_url, token="secret"))


async def test_truncated_reply_is_a_lost_connection_over_httpx(truncating_url: str) -> None:
    check_lost(await read_log(truncating_url, auth=httpx.Auth()))


async def test_reply_that_a_proxy_truncates_is_a_lost_connection(truncating_url: str) -> None:
    proxy = truncating_url.removesuffix("/skaha")
    check_lost(await read_log("http://127.0.0.1:1/skaha", proxy=proxy))


async def test_truncated_reply_is_a_read_error_for_a_user_of_httpx(truncating_url: str) -> None:
    async with httpx.AsyncClient(transport=AnyioTransport()) as client:
        with pytest.raises(httpx.ReadError):
            await client.get(truncating_url)


MAKERS: dict[str, Callable[[Path], ssl.SSLContext]] = {
    "session": lambda _folder: make_context(None),
    "AnyioTransport": lambda _folder: _anyio_options.new_context(True, None, True),
    "AnyioTransport, verify=False": lambda _folder: _anyio_options.new_context(False, None, False),
    "AnyioTransport, a file": lambda folder: _anyio_options.new_context(
        str(folder / "ca.pem"), None, False
    ),
    "AnyioTransport, a folder": lambda folder: _anyio_options.new_context(str(folder), None, False),
}


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.usefixtures("authority")
def test_each_context_of_a_client_detects_truncation(maker: str, tmp_path: Path) -> None:
    assert not MAKERS[maker](tmp_path).options & IGNORE_TRUNCATION


async def test_both_ends_of_an_embedded_platform_detect_truncation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    contexts: list[ssl.SSLContext] = []
    make_config = kaleden.local._listener.make_config

    def noted(descriptor: int, tls: tuple[Path, ssl.SSLContext]) -> Any:
        contexts.append(tls[1])
        return make_config(descriptor, tls)

    monkeypatch.setattr("kaleden.local._server.make_config", noted)
    async with kaleden.local.LocalPlatform(tls=True) as platform:
        contexts += [platform.ssl_context(), platform.ssl_context(platform.issue_certificate())]
    assert 3 == len(contexts)
    assert not any(context.options & IGNORE_TRUNCATION for context in contexts)


@pytest.mark.parametrize("option", ["ssl_context", "verify"])
async def test_context_of_the_caller_is_left_as_it_is(option: str, authority: trustme.CA) -> None:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with tls_server(server_context(authority)) as url:
        if option == "verify":
            async with httpx.AsyncClient(transport=AnyioTransport(verify=context)) as client:
                await client.get(url)
        else:
            await read_log(url, token="secret", ssl_context=context)
    assert context.options & IGNORE_TRUNCATION


def test_other_options_of_a_context_stay() -> None:
    context = ssl.create_default_context()
    before = context.options
    assert detect_truncation(context).options == before & ~IGNORE_TRUNCATION
