"""Proxies: tunnels over http and https, forwarded requests, and refusals."""

from __future__ import annotations

import base64
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest
import trustme
from anyio.abc import ByteStream, SocketStream
from anyio.lowlevel import checkpoint

import kaleden
from _http.proxies import (
    FakeProxy,
    open_proxy,
    proxy_authority,
    proxy_contexts,
    receive_head,
)
from _http.servers import BearerAuth, describe, direct, over_httpx, reply
from _http.tls import OK, FakeTls, client_context, server_context, tls_server
from kaleden import ConfigurationError, Failure, FailureKind
from kaleden._auth._endpoint import parse_proxy
from kaleden._http import DirectTransport, Origin, Proxy, TransportError
from kaleden._http._anyio_options import new_proxy
from kaleden._wire import Request
from kaleden._wire._requests import build_info
from kaleden.http import AnyioTransport
from support import Handler, raw_server, read_request

GET = build_info("a")
PASSWORD = "s3cret/pass@word"
USERINFO = "ada:s3cret%2Fpass%40word@"
CREDENTIALS = base64.b64encode(f"ada:{PASSWORD}".encode()).decode()
SCHEMES = ["http", "https"]
MAKERS: dict[str, Callable[..., Any]] = {"direct": direct, "httpx": over_httpx}


@pytest.fixture(params=SCHEMES)
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest) -> Callable[..., Any]:
    return MAKERS[request.param]


def tls() -> FakeTls:
    """The TLS of a client that trusts the authority of the proxies."""
    return FakeTls(proxy_contexts()[1])


@asynccontextmanager
async def transport_through(
    fake: Any, scheme: str, url: str = "https://127.0.0.1:1/skaha", userinfo: str = ""
) -> AsyncIterator[DirectTransport]:
    async with (
        open_proxy(fake, scheme, userinfo) as proxy,
        direct(url, None, tls=tls(), proxy=proxy, connections=4) as transport,
    ):
        yield transport


async def failing(fake: Any, scheme: str, userinfo: str = "") -> TransportError:
    """The error of a request through *fake*."""
    async with transport_through(fake, scheme, userinfo=userinfo) as transport:
        with pytest.raises(TransportError) as caught:
            await transport.send(GET)
        state = transport.statistics()
        assert (0, 0, 0) == (state.in_flight, state.connections, state.stuck)
    error = caught.value
    assert (FailureKind.CONNECT_FAILED, False) == (error.kind, error.sent)
    assert PASSWORD not in repr(error)
    assert CREDENTIALS not in repr(error)
    return error


class Script:
    """A proxy that handles its connections with a function."""

    def __init__(self, serve: Callable[[ByteStream], Any]) -> None:
        self.serve = serve


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_tunnel_has_the_tls_of_the_server_inside(
    make: Callable[..., Any], scheme: str, host: str
) -> None:
    if host == "::1" and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    fake = FakeProxy()
    authority = trustme.CA()
    async with (
        tls_server(server_context(authority, host), host=host) as url,
        open_proxy(fake, scheme, USERINFO) as proxy,
    ):
        trust = FakeTls(client_context(authority))
        async with make(url, "a-token", tls=trust, proxy=proxy, connections=4) as transport:
            for _ in range(3):
                assert b"{}" == (await transport.send(GET)).body
            assert 1 == transport.statistics().connections
    [head] = fake.seen
    authority_form = url.removeprefix("https://").removesuffix("/skaha")
    request_line, *headers = head.removesuffix("\r\n\r\n").split("\r\n")
    assert f"CONNECT {authority_form} HTTP/1.1" == request_line
    assert f"Host: {authority_form}" in headers
    assert f"Proxy-Authorization: Basic {CREDENTIALS}" in headers
    assert [True] == [line.startswith("User-Agent: kaleden/") for line in headers[1:2]]
    assert "a-token" not in head


async def test_bodies_of_megabytes_pass_a_tunnel_both_ways(scheme: str) -> None:
    sizes: list[int] = []

    async def handler(stream: SocketStream) -> None:
        while True:
            sizes.append(len(await read_request(stream)))
            await stream.send(reply(b"x" * 3_000_000))

    async with raw_server(handler) as url:
        url = url.replace("http:", "https:")
        async with transport_through(FakeProxy(ends_tls=True), scheme, url) as transport:
            for _ in range(2):
                request = Request("POST", "session", form=b"y" * 3_000_000)
                assert 3_000_000 == len((await transport.send(request)).body)
    assert all(size > 3_000_000 for size in sizes)
    assert 2 == len(sizes)


async def test_concurrent_requests_pass_tunnels_in_batches(scheme: str) -> None:
    async with raw_server(describe) as url:
        url = url.replace("http:", "https:")
        async with transport_through(FakeProxy(ends_tls=True), scheme, url) as transport:
            for _ in range(3):
                async with anyio.create_task_group() as group:
                    for number in range(40):
                        group.start_soon(transport.send, build_info(f"a{number}"))
            assert 4 >= transport.statistics().connections


async def test_connection_with_excess_bytes_in_a_tunnel_is_not_used_again(scheme: str) -> None:
    async def handler(stream: SocketStream) -> None:
        while True:
            await read_request(stream)
            await stream.send(OK)
            await stream.send(reply(b"planted"))

    async with raw_server(handler) as url:
        url = url.replace("http:", "https:")
        async with transport_through(FakeProxy(ends_tls=True), scheme, url) as transport:
            for _ in range(3):
                try:
                    assert b"{}" == (await transport.send(GET)).body
                except TransportError as error:
                    assert "more came" in error.message
                for _ in range(20):
                    await checkpoint()


@pytest.mark.parametrize(
    ("response", "expected", "final"),
    [
        (b"HTTP/1.1 407 Auth\r\nProxy-Authenticate: Basic\r\n\r\n", "user and password", True),
        (b"HTTP/1.1 407 Auth\r\ncontent-length: 5\r\n\r\nlogin", "user and password", True),
        (b"HTTP/1.0 403 Forbidden\r\n\r\n<html>no</html>", "HTTP 403", True),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "HTTP 502", False),
        (b"HTTP/1.1 302 Found\r\nlocation: http://login\r\n\r\n", "HTTP 302", False),
        (b"HTTP/1.1 405 No\r\n\r\n", "HTTP 405", False),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", "more than a response", True),
        (b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "more than a response", True),
        (b"HTTP/1.1 407 Auth\n\n", "no valid response", True),
        (b"HTTP/1.1 407 Auth\r\nproxy-auth", "closed the connection", True),
        (b"HTTP/1.1 101 Switching\r\n\r\n", "no valid response", True),
        (b"HTTP/2.0 200 OK\r\n\r\n", "no valid response", True),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "no valid response", True),
        (b"HTTP/1.1 200 OK\r\nx-a: b", "closed the connection", True),
        (b"HTTP/1.1 200 OK\r\n" + b"x-a: b\r\n" * 300 + b"\r\n", "no valid response", True),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 30, "no valid response", True),
        (b"", "closed the connection", False),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_proxy_that_opens_no_tunnel_is_a_failed_connection(
    scheme: str, response: bytes, expected: str, final: bool
) -> None:
    fake = FakeProxy(response=response)
    error = await failing(fake, scheme, USERINFO)
    assert expected in error.message
    assert final == error.final
    assert 1 == len(fake.seen)


@pytest.mark.parametrize("response", [b"SSH-2.0-OpenSSH_9.2\r\n\r\n", b"HTTP/1.1 200 OK\r\nx-a: b"])
async def test_proxy_without_password_is_asked_again_after_an_invalid_response(
    scheme: str, response: bytes
) -> None:
    error = await failing(FakeProxy(response=response), scheme)
    assert not error.final


async def test_tunnel_may_begin_with_headers_and_an_interim_response(scheme: str) -> None:
    class Polite(FakeProxy):
        async def serve(self, stream: ByteStream) -> None:
            await stream.send(b"HTTP/1.1 103 Early Hints\r\nlink: <a>\r\n\r\n")
            await super().serve(stream)

    async with raw_server(describe) as url:
        url = url.replace("http:", "https:")
        async with transport_through(Polite(ends_tls=True), scheme, url) as transport:
            assert 200 == (await transport.send(GET)).status


@pytest.mark.parametrize(
    "established",
    [
        b"HTTP/1.0 200 Connection established\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 299 \r\nVia: 1.1 p\r\n\r\n",
    ],
)
async def test_headers_of_a_success_announce_no_body(
    scheme: str, established: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("_http.proxies.ESTABLISHED", established)
    async with raw_server(describe) as url:
        url = url.replace("http:", "https:")
        async with transport_through(FakeProxy(ends_tls=True), scheme, url) as transport:
            assert 200 == (await transport.send(GET)).status


async def test_proxy_without_end_or_without_response_has_its_time(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kaleden._http._direct.CONNECT_TIMEOUT", 0.05)

    async def stall(stream: ByteStream) -> None:
        await receive_head(stream)
        await anyio.sleep_forever()

    error = await failing(Script(stall), scheme)
    assert "within 0.05 seconds" in error.message
    assert f"through the proxy {scheme}://127.0.0.1" in error.message


async def test_head_without_end_is_bounded(scheme: str) -> None:
    sent = 0

    async def flood(stream: ByteStream) -> None:
        nonlocal sent
        await stream.send(b"HTTP/1.1 200 OK\r\n")
        while True:
            await stream.send(b"x-a: b\r\n" * 100)
            sent += 1

    error = await failing(Script(flood), scheme)
    assert "head is longer" in error.message
    assert sent < 2**15


@pytest.mark.parametrize("status", [b"407 Auth", b"403 Forbidden"])
async def test_refusal_of_the_proxy_is_not_repeated(scheme: str, status: bytes) -> None:
    fake = FakeProxy(response=b"HTTP/1.1 " + status + b"\r\n\r\n")
    retry = kaleden.RetryPolicy(base=0.001)
    async with transport_through(fake, scheme, userinfo=USERINFO) as transport:
        session = kaleden.AsyncSession(transport=transport, concurrency=4, retry=retry)
        async with session:
            outcomes = await session.info(["a", "b", "c"])
    assert 3 == len(fake.seen)
    for failure in outcomes.failures.values():
        assert (1, True) == (failure.attempts, failure.final)
        assert PASSWORD not in str(failure)


async def test_bad_gateway_is_retried(scheme: str) -> None:
    class Recovering(FakeProxy):
        async def serve(self, stream: ByteStream) -> None:
            self.response = b"HTTP/1.1 502 No\r\n\r\n" if len(self.seen) < 2 else None
            await super().serve(stream)

    fake = Recovering(ends_tls=True)
    retry = kaleden.RetryPolicy(base=0.001)
    async with raw_server(describe) as url:
        url = url.replace("http:", "https:")
        async with transport_through(fake, scheme, url) as transport:
            async with kaleden.AsyncSession(transport=transport, retry=retry) as session:
                assert (await session.info("a")).ok
    assert 3 == len(fake.seen)


async def test_proxy_that_cannot_be_reached_is_named() -> None:
    async with open_proxy(FakeProxy(), "http", USERINFO) as proxy:
        pass
    async with direct("https://h", None, tls=tls(), proxy=proxy, connections=1) as transport:
        with pytest.raises(TransportError, match=r"the proxy http://127\.0\.0\.1.* be reached"):
            await transport.send(GET)


async def test_certificate_of_a_proxy_is_checked() -> None:
    async with open_proxy(FakeProxy(), "https") as proxy:
        stranger = Proxy(proxy.url, proxy.origin, tls=FakeTls(client_context(trustme.CA())))
        async with direct("https://h", None, tls=tls(), proxy=stranger, connections=1) as transport:
            with pytest.raises(TransportError, match=r"the proxy https:.*not trusted") as caught:
                await transport.send(GET)
    assert caught.value.final


async def test_certificate_of_a_server_in_a_tunnel_is_checked(scheme: str) -> None:
    async with (
        tls_server(server_context(trustme.CA())) as url,
        transport_through(FakeProxy(), scheme, url) as transport,
    ):
        with pytest.raises(TransportError, match="not trusted") as caught:
            await transport.send(GET)
    assert (FailureKind.CONNECT_FAILED, True) == (caught.value.kind, caught.value.final)
    assert "the proxy" not in caught.value.message


async def test_http_proxy_with_an_https_url_is_reported() -> None:
    async def serve(stream: SocketStream) -> None:
        await stream.receive()
        await stream.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with raw_server(serve) as url:
        parsed = parse_proxy(url.replace("http:", "https:"), "proxy=")
        proxy = Proxy(parsed.url, parsed.origin, tls=tls())
        async with direct("https://h", None, tls=tls(), proxy=proxy, connections=1) as transport:
            with pytest.raises(TransportError, match=r"the proxy .* TLS was not agreed") as caught:
                await transport.send(GET)
    assert caught.value.final


async def test_plain_http_is_forwarded_with_the_whole_url(
    make: Callable[..., Any], scheme: str
) -> None:
    fake = FakeProxy()
    async with raw_server(describe) as url, open_proxy(fake, scheme, USERINFO) as proxy:
        async with make(url, "a-token", proxy=proxy, connections=4) as transport:
            assert 200 == (await transport.send(GET)).status
    [head] = fake.seen
    assert head.startswith(f"GET {url}/v1/session/a HTTP/1.1\r\n")
    assert f"\r\nProxy-Authorization: Basic {CREDENTIALS}\r\n" in head
    assert "\r\nAuthorization: Bearer a-token\r\n" in head


async def test_refused_password_of_a_forwarded_request_is_final(
    make: Callable[..., Any], scheme: str
) -> None:
    async def refuse(stream: ByteStream) -> None:
        await receive_head(stream)
        await stream.send(reply(b"login", status=b"407 Auth"))

    async with open_proxy(Script(refuse), scheme, USERINFO) as proxy:
        async with make("http://h.example", None, proxy=proxy, connections=1) as transport:
            with pytest.raises(TransportError, match="refused the user and password") as caught:
                await transport.send(GET)
    assert (FailureKind.CONNECT_FAILED, True) == (caught.value.kind, caught.value.final)


async def test_refused_password_with_a_truncated_body_is_final(scheme: str) -> None:
    async def refuse(stream: ByteStream) -> None:
        await receive_head(stream)
        await stream.send(b"HTTP/1.1 407 Auth\r\ncontent-length: 20\r\n\r\nlogin")

    async with open_proxy(Script(refuse), scheme, USERINFO) as proxy:
        async with direct("http://h.example", None, proxy=proxy, connections=1) as transport:
            with pytest.raises(TransportError, match="refused the user and password") as caught:
                await transport.send(GET)
    assert caught.value.final


async def test_cancelling_at_every_step_closes_the_connection(scheme: str) -> None:
    open_connections = 0

    class Counting(FakeProxy):
        async def serve(self, stream: ByteStream) -> None:
            nonlocal open_connections
            open_connections += 1
            try:
                await super().serve(stream)
            finally:
                open_connections -= 1

    async with raw_server(describe) as url:
        url = url.replace("http:", "https:")
        async with transport_through(Counting(ends_tls=True), scheme, url) as transport:
            for steps in range(60):
                async with anyio.create_task_group() as group:
                    group.start_soon(transport.send, GET)
                    for _ in range(steps):
                        await checkpoint()
                    group.cancel_scope.cancel()
                state = transport.statistics()
                assert (0, 0) == (state.in_flight, state.stuck)
                if state.connections:
                    break
            assert 200 == (await transport.send(GET)).status
            with anyio.fail_after(60):
                while open_connections > 1:
                    await checkpoint()


async def test_session_goes_through_a_proxy_with_each_login(
    scheme: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    proxy_authority().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    fake = FakeProxy(ends_tls=True)
    async with raw_server(describe) as url, open_proxy(fake, scheme) as proxy:
        url = url.replace("http:", "https:")
        port = proxy.origin.port
        address = f"{scheme.upper()}://{USERINFO}127.0.0.1:{port}/ignored"
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
        for login in ({"token": "t"}, {"auth": BearerAuth("t")}):
            async with kaleden.AsyncSession(url, proxy=address, **login) as session:
                assert (await session.info("a")).ok
                assert proxy.url == session.describe().proxy
                assert PASSWORD not in repr(session)
    assert 2 == len(fake.seen)
    assert all(f"Basic {CREDENTIALS}\r\n" in head for head in fake.seen)


def answering(answer: bytes) -> Handler:
    async def handler(stream: SocketStream) -> None:
        while True:
            await read_request(stream)
            await stream.send(answer)

    return handler


async def test_users_of_httpx_go_through_a_proxy(scheme: str) -> None:
    fake = FakeProxy(ends_tls=True)
    context = proxy_contexts()[1]
    async with raw_server(answering(OK)) as url, open_proxy(fake, scheme) as proxy:
        given = httpx.Proxy(
            proxy.url,
            auth=("ada", PASSWORD),
            headers={"X-Ours": "1"},
            ssl_context=context if scheme == "https" else None,
        )
        transport = AnyioTransport(verify=context, proxy=given)
        async with httpx.AsyncClient(transport=transport) as client:
            for _ in range(2):
                assert "{}" == (await client.get(url.replace("http:", "https:"))).text
            assert "{}" == (await client.post(url, content=b"x")).text
    tunnel, forwarded = fake.seen
    assert tunnel.startswith("CONNECT 127.0.0.1:")
    assert forwarded.startswith(f"POST {url} HTTP/1.1\r\n")
    for head in fake.seen:
        assert f"\r\nProxy-Authorization: Basic {CREDENTIALS}\r\n" in head
        assert "\r\nX-Ours: 1\r\n" in head


async def test_refused_tunnel_is_a_proxy_error_for_users_of_httpx() -> None:
    fake = FakeProxy(response=b"HTTP/1.1 407 Auth\r\n\r\n")
    async with open_proxy(fake, "http", USERINFO) as proxy:
        address = proxy.url.replace("://", f"://{USERINFO}")
        transport = AnyioTransport(verify=ssl.create_default_context(), proxy=address)
        async with httpx.AsyncClient(transport=transport) as client:
            with pytest.raises(httpx.ProxyError, match="refused the user and password"):
                await client.get("https://h.example")
            # The caller's client of a session knows that it is final.
            async with kaleden.AsyncSession("https://h.example", client=client) as session:
                [failure] = (await session.logs("a")).failures.values()
    assert isinstance(failure, Failure)
    assert (FailureKind.CONNECT_FAILED, True, 1) == (
        failure.kind,
        failure.final,
        failure.attempts,
    )
    assert 2 == len(fake.seen)
    assert f"Basic {CREDENTIALS}" in fake.seen[0]


@pytest.mark.parametrize(
    ("proxy", "expected"),
    [
        ("socks5://ada:secret@p:1", r"httpx\[socks\]"),
        ("ftp://ada:secret@p:1", "httpx.Proxy"),
        ("http://ada:secret@", "httpx.Proxy"),
        (5, "httpx.Proxy"),
        (httpx.Proxy("http://p", auth=("ada", "secret\udce9")), "httpx.Proxy"),
        (httpx.Proxy("http://p", headers={"a": "secret\r\nb: c"}), "end its line"),
    ],
)
def test_proxy_that_httpx_cannot_use_is_refused(proxy: Any, expected: str) -> None:
    with pytest.raises(ConfigurationError, match=expected) as caught:
        AnyioTransport(proxy=proxy)
    assert "secret" not in str(caught.value)
    assert caught.value.__context__ is None


def test_proxy_of_an_anyio_transport_may_have_an_ipv6_address() -> None:
    proxy = new_proxy("http://[::1]:3128/path", True)
    assert ("http://[::1]:3128", Origin("http", "::1", 3128)) == (proxy.url, proxy.origin)
