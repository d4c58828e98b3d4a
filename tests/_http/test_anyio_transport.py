"""`AnyioTransport` in a plain `httpx.AsyncClient`, beside httpx's own transport."""

from __future__ import annotations

import asyncio
import gzip
import re
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import trustme
from anyio.abc import SocketStream
from anyio.lowlevel import checkpoint

import kaleden
from _http.servers import always, reply
from _http.tls import client_context, server_context, tls_server
from kaleden.http import AnyioTransport
from support import Handler, raw_server, read_request

OK = reply(b"hello")
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"

Make = Callable[..., httpx.AsyncBaseTransport]


@pytest.fixture(params=["ours", "httpx's"])
def make(request: pytest.FixtureRequest) -> Make:
    """Both transports, for the public behaviour of httpx."""
    return AnyioTransport if request.param == "ours" else httpx.AsyncHTTPTransport


@asynccontextmanager
async def client_of(
    handler: Handler, transport: httpx.AsyncBaseTransport, **options: Any
) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        raw_server(handler) as url,
        httpx.AsyncClient(transport=transport, base_url=url, **options) as client,
    ):
        yield client


def answering(answer: bytes | Callable[[bytes], bytes], seen: list[bytes] | None = None) -> Handler:
    """Answer every request of a connection."""

    async def handler(stream: SocketStream) -> None:
        while True:
            request = await read_request(stream)
            if seen is not None:
                seen.append(request)
            await stream.send(answer if isinstance(answer, bytes) else answer(request))

    return handler


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (OK, 200, b"hello"),
        (CHUNKED, 200, b"hello"),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", 200, b"hello"),
        (b"HTTP/1.0 200 OK\r\n\r\nhello", 200, b"hello"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304, b""),
        (b"HTTP/1.1 103 Hints\r\nLink: a\r\n\r\n" + OK, 200, b"hello"),
        (reply(b"", b"connection: close", status=b"500 Broken"), 500, b""),
    ],
)
async def test_response_is_returned_with_status_and_body(
    make: Make, answer: bytes, status: int, body: bytes
) -> None:
    async with client_of(always(answer), make()) as client:
        for _ in range(2):
            response = await client.get("/")
            assert (status, body) == (response.status_code, response.content)
            assert response.http_version == f"HTTP/{'1.0' if b'HTTP/1.0' in answer else '1.1'}"


async def test_headers_are_as_they_came(make: Make) -> None:
    answer = reply(b"", b"Set-Cookie: a=1", b"Set-Cookie: b=2", b"X-Odd: caf\xe9")
    async with client_of(answering(answer), make()) as client:
        response = await client.get("/")
        assert ["a=1", "b=2"] == response.headers.get_list("set-cookie")
        assert "café" == response.headers["x-odd"]
        assert {"a": "1", "b": "2"} == dict(client.cookies)


async def test_reply_to_head_has_no_body(make: Make) -> None:
    async with client_of(
        answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), make()
    ) as client:
        for _ in range(3):
            response = await client.head("/")
            assert (b"", "5") == (response.content, response.headers["content-length"])


async def test_connections_are_kept() -> None:
    opened = 0

    async def handler(stream: SocketStream) -> None:
        nonlocal opened
        opened += 1
        await answering(OK)(stream)

    transport = AnyioTransport()
    async with client_of(handler, transport) as client:
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH"):
            assert 200 == (await client.request(method, "/", content=b"x")).status_code
        assert "1 connections" in repr(transport)
    assert 1 == opened
    assert "0 connections" in repr(transport)


async def test_bodies_go_out_with_a_length_or_in_chunks(make: Make) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"one", b"", b"three"):
            await checkpoint()
            yield piece

    seen: list[bytes] = []

    async def handler(stream: SocketStream) -> None:
        while True:
            request = await read_request(stream)
            while b"chunked" in request and not request.endswith(b"0\r\n\r\n"):
                request += await stream.receive()
            seen.append(request)
            await stream.send(OK)

    async with client_of(handler, make()) as client:
        await client.post("/", content=b"three")
        await client.post("/", content=pieces())
        await client.post("/", content=pieces(), headers={"Content-Length": "8"})
    fixed, chunked, long = (request.partition(b"\r\n\r\n")[2] for request in seen)
    assert (b"three", b"3\r\none\r\n5\r\nthree\r\n0\r\n\r\n", b"onethree") == (fixed, chunked, long)


@pytest.mark.parametrize("length", ["3", "5", "x"])
async def test_body_that_is_not_as_announced_is_refused(length: str) -> None:
    async def pieces() -> AsyncGenerator[bytes]:
        yield b"four"

    async with client_of(answering(OK), AnyioTransport()) as client:
        async with aclosing(pieces()) as body:
            with pytest.raises(httpx.LocalProtocolError):
                await client.post("/", content=body, headers={"Content-Length": length})
        assert b"hello" == (await client.get("/")).content


@pytest.mark.parametrize(
    "options",
    [
        {"headers": {"a": "b\r\nc: d"}},
        {"headers": {"a\r\nb": "c"}},
        {"headers": {"a b": "c"}},
        {"method": "GE T"},
        {"extensions": {"target": b"/a b"}},
        {"headers": {"transfer-encoding": "chunked", "content-length": "5"}, "content": b"hello"},
        {"headers": {"transfer-encoding": "gzip"}, "content": b"hello"},
        {"method": "CONNECT"},
    ],
)
async def test_invalid_request_is_not_sent(options: dict[str, Any]) -> None:
    seen: list[bytes] = []
    async with client_of(answering(OK, seen), AnyioTransport()) as client:
        with pytest.raises(httpx.LocalProtocolError):
            await client.request(**{"method": "GET", "url": "/", **options})
        assert not seen


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "no-protocol"])
async def test_unsupported_protocol_is_refused(make: Make, url: str) -> None:
    async with httpx.AsyncClient(transport=make()) as client:
        with pytest.raises(httpx.UnsupportedProtocol):
            await client.get(url)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\n", httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", httpx.RemoteProtocolError),
        (CHUNKED[:-3], httpx.RemoteProtocolError),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", httpx.RemoteProtocolError),
    ],
)
async def test_malformed_response_is_a_protocol_error(
    make: Make, answer: bytes, error: type[Exception]
) -> None:
    async with client_of(always(answer), make()) as client:
        with pytest.raises(error) as caught:
            await client.get("/")
        assert isinstance(caught.value, httpx.RequestError)
        assert "GET" == caught.value.request.method


async def test_reset_is_a_read_error(make: Make) -> None:
    async def handler(stream: SocketStream) -> None:
        await read_request(stream)
        raw = stream.extra(anyio.abc.SocketAttribute.raw_socket)
        # To close with this set is a reset.
        raw.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")

    async with client_of(handler, make()) as client:
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            await client.get("/")


async def test_refused_connection_is_a_connect_error(make: Make) -> None:
    async with raw_server(answering(OK)) as url:
        pass
    async with httpx.AsyncClient(transport=make()) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(url)


async def stall(stream: SocketStream) -> None:
    """Read a request and send no response."""
    await read_request(stream)
    await anyio.sleep_forever()


async def test_stalled_reply_is_a_read_timeout(make: Make) -> None:
    async with client_of(stall, make(), timeout=httpx.Timeout(None, read=0.01)) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.get("/")


async def test_stalled_body_is_a_read_timeout(make: Make) -> None:
    async def handler(stream: SocketStream) -> None:
        await read_request(stream)
        await stream.send(OK[:-2])
        await anyio.sleep_forever()

    head_came = False
    async with client_of(handler, make(), timeout=None) as client:
        # The head has to arrive within the same time-out, and the machine may be slow.
        for seconds in (0.05, 0.5, 5, 50):
            with pytest.raises(httpx.ReadTimeout):
                timeout = httpx.Timeout(None, read=seconds)
                async with client.stream("GET", "/", timeout=timeout) as response:
                    head_came = True
                    await response.aread()
            if head_came:
                break
    assert head_came


async def test_server_that_does_not_read_is_a_write_timeout() -> None:
    # The connection is not accepted, so only the buffers of the kernel can be filled.
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        timeout = httpx.Timeout(None, write=0.05)
        async with httpx.AsyncClient(transport=AnyioTransport(), timeout=timeout) as client:
            with pytest.raises(httpx.WriteTimeout):
                await client.post(url, content=b"x" * 50_000_000)


async def test_full_pool_is_a_pool_timeout(make: Make) -> None:
    release = anyio.Event()

    async def handler(stream: SocketStream) -> None:
        await read_request(stream)
        await stream.send(OK[:-2])
        await release.wait()
        await stream.send(OK[-2:])
        await answering(OK)(stream)

    transport = make(limits=httpx.Limits(max_connections=1))
    async with client_of(handler, transport, timeout=None) as client:
        async with client.stream("GET", "/") as response:
            with pytest.raises(httpx.PoolTimeout):
                await client.get("/", timeout=httpx.Timeout(None, pool=0.01))
            release.set()
            assert b"hello" == await response.aread()
        assert b"hello" == (await client.get("/")).content


async def test_connection_not_made_in_time_is_a_connect_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def never(host: str, port: int) -> Any:
        await anyio.sleep_forever()

    monkeypatch.setattr("kaleden._http._h1._connect._look_up", never)
    timeout = httpx.Timeout(None, connect=0.01)
    async with client_of(answering(OK), AnyioTransport(), timeout=timeout) as client:
        with pytest.raises(httpx.ConnectTimeout):
            await client.get("/")


async def test_body_is_read_in_pieces(make: Make) -> None:
    taken = [anyio.Event() for _ in range(3)]

    async def handler(stream: SocketStream) -> None:
        await read_request(stream)
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n")
        for number, event in enumerate(taken):
            await stream.send(b"%d" % number)
            await event.wait()

    async with client_of(handler, make()) as client:
        async with client.stream("GET", "/") as response:
            number = 0
            async for piece in response.aiter_raw():
                assert b"%d" % number == piece
                taken[number].set()
                number += 1
        assert 3 == number


@pytest.mark.parametrize("chunked", [False, True])
async def test_large_bodies_are_sent_and_received(make: Make, chunked: bool) -> None:
    size = 5_000_000

    async def handler(stream: SocketStream) -> None:
        received = 0
        while received < size:
            received += len(await stream.receive())
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (size, b"y" * size) if chunked else b"y" * size
        how = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size
        await stream.send(b"HTTP/1.1 200 OK\r\n" + how + b"\r\n\r\n" + body)
        await stream.receive()

    async with client_of(handler, make()) as client:
        response = await client.post("/", content=b"x" * size)
    assert size == len(response.content)


async def test_redirects_cookies_and_authentication_are_the_clients(make: Make) -> None:
    class Twice(httpx.Auth):
        requires_response_body = True

        def auth_flow(self, request: httpx.Request) -> Any:
            response = yield request
            request.headers["Authorization"] = response.text
            yield request

    def answer(request: bytes) -> bytes:
        if b"/start" in request:
            return reply(b"", b"Location: there", b"Set-Cookie: a=1", status=b"302 Found")
        if b"authorization: word" not in request.lower():
            return reply(b"word", status=b"401 Who")
        return reply(b"in" if b"cookie: a=1" in request.lower() else b"no cookie")

    async with client_of(answering(answer), make(), follow_redirects=True) as client:
        response = await client.get("/start", auth=Twice())
    assert (b"in", 2) == (response.content, len(response.history))


async def test_compressed_body_is_decoded_by_the_client(make: Make) -> None:
    async with client_of(
        answering(reply(gzip.compress(b"hello"), b"content-encoding: gzip")), make()
    ) as client:
        assert "hello" == (await client.get("/")).text


async def test_each_origin_has_its_own_connections(make: Make) -> None:
    limits = httpx.Limits(max_connections=2)
    async with (
        raw_server(answering(reply(b"1"))) as one,
        raw_server(answering(reply(b"2"))) as two,
        raw_server(answering(reply(b"3"))) as three,
        httpx.AsyncClient(transport=make(limits=limits)) as client,
    ):
        for _ in range(2):
            for url, body in ((one, "1"), (two, "2"), (three, "3")):
                assert body == (await client.get(url)).text


async def test_kept_connection_that_was_closed_is_replaced() -> None:
    async with client_of(always(OK), AnyioTransport()) as client:
        for _ in range(5):
            assert 200 == (await client.get("/")).status_code


@pytest.mark.parametrize("options", ["close", "x-one, Close"])
async def test_connection_close_of_a_request_ends_its_connection(make: Make, options: str) -> None:
    served: list[int] = []

    async def handler(stream: SocketStream) -> None:
        served.append(0)
        while True:
            await read_request(stream)
            served[-1] += 1
            await stream.send(OK)

    async with client_of(handler, make(), headers={"connection": options}) as client:
        for _ in range(3):
            assert 200 == (await client.post("/")).status_code
    assert [1, 1, 1] == served


async def test_few_idle_connections_serve_many_origins(make: Make) -> None:
    limits = httpx.Limits(max_connections=8, max_keepalive_connections=1)
    async with (
        raw_server(answering(reply(b"1"))) as one,
        raw_server(answering(reply(b"2"))) as two,
        httpx.AsyncClient(transport=make(limits=limits)) as client,
    ):

        async def ask(url: str, body: str) -> None:
            for _ in range(5):
                assert body == (await client.get(url)).text

        await ask(one, "1")
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(ask, one, "1")
                group.start_soon(ask, two, "2")


async def test_only_idempotent_requests_are_resent() -> None:
    seen: list[bytes] = []

    async def handler(stream: SocketStream) -> None:
        for _ in range(2):
            seen.append(await read_request(stream))
            if len(seen) % 2:
                await stream.send(OK)
            else:
                return

    async with client_of(handler, AnyioTransport()) as client:
        await client.get("/")
        assert 200 == (await client.put("/", content=b"x")).status_code
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post("/", content=b"x")
    assert ["GET", "PUT", "PUT", "POST"] == [request.split()[0].decode() for request in seen]


@pytest.mark.parametrize("given", ["context", "file", "context and file", "authorities"])
async def test_client_certificate_is_shown(given: str, tmp_path: Any) -> None:
    authority = trustme.CA()
    demanding = server_context(authority)
    demanding.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(demanding)
    certificate = authority.issue_cert("me@example.org")
    with pytest.MonkeyPatch.context() as patch:
        if given == "context":
            context = client_context(authority)
            certificate.configure_cert(context)
            transport = AnyioTransport(verify=context)
        else:
            trusted, pem = str(tmp_path / "authority.pem"), str(tmp_path / "mine.pem")
            authority.cert_pem.write_to_path(trusted)
            certificate.private_key_and_cert_chain_pem.write_to_path(pem)
            if given == "context and file":
                transport = AnyioTransport(verify=client_context(authority), cert=pem)
            elif given == "authorities":
                transport = AnyioTransport(verify=trusted, cert=pem)
            else:
                patch.setenv("SSL_CERT_FILE", trusted)
                transport = AnyioTransport(cert=pem)
        async with (
            tls_server(demanding) as url,
            httpx.AsyncClient(transport=transport) as client,
        ):
            assert "{}" == (await client.get(url)).text


@pytest.mark.parametrize(
    "options",
    [{"verify": 5}, {"verify": None}, {"cert": Path("mine.pem")}, {"cert": ("chain.pem", None)}],
)
def test_unusable_tls_arguments_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(kaleden.ConfigurationError, match=f"{next(iter(options))}= takes"):
        AnyioTransport(**options)


async def test_server_that_is_not_trusted_is_a_connect_error() -> None:
    async with (
        tls_server(server_context(trustme.CA())) as url,
        httpx.AsyncClient(transport=AnyioTransport()) as client,
    ):
        with pytest.raises(httpx.ConnectError, match=r"(?i)certificate"):
            await client.get(url)


async def test_verify_false_trusts_every_server(make: Make) -> None:
    async with (
        tls_server(server_context(trustme.CA())) as url,
        httpx.AsyncClient(transport=make(verify=False)) as client,
    ):
        assert "{}" == (await client.get(url)).text


async def test_unread_body_releases_its_slot() -> None:
    async def endless(stream: SocketStream) -> None:
        await read_request(stream)
        await stream.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await stream.send(b"x" * 1000)

    limits = httpx.Limits(max_connections=1)
    async with raw_server(endless) as url, AnyioTransport(limits=limits) as transport:
        for _ in range(5):
            with anyio.fail_after(60):
                response = await transport.handle_async_request(httpx.Request("GET", url))
                assert isinstance(response.stream, httpx.AsyncByteStream)
                body = aiter(response.stream)
                assert await anext(body)
                await response.aclose()
                with pytest.raises(httpx.StreamClosed):
                    await exhaust(body)
        assert "0 connections" in repr(transport)


async def exhaust(body: AsyncIterator[bytes]) -> None:
    async for _ in body:
        pass


async def check_rest(transport: AnyioTransport, client: httpx.AsyncClient) -> None:
    state = transport.statistics()
    assert (0, 0, 0) == (state.in_flight, state.stuck, transport._pool.in_use_count)
    with anyio.fail_after(60):
        assert b"hello" == (await client.get("/")).content


async def ask(client: httpx.AsyncClient) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"1234"
        await checkpoint()
        yield b"5678"

    await client.get("/")
    await client.post("/", content=body(), headers={"Content-Length": "8"})
    async with client.stream("GET", "/") as response:
        await response.aread()


def with_two_slots() -> AnyioTransport:
    return AnyioTransport(limits=httpx.Limits(max_connections=2))


async def in_two_pieces(stream: SocketStream) -> None:
    """Answer with a head first and the body a little later."""
    while True:
        await read_request(stream)
        await stream.send(OK[:-3])
        await checkpoint()
        await stream.send(OK[-3:])


@pytest.mark.slow
async def test_cancellation_at_every_step_releases_the_slot() -> None:
    transport = with_two_slots()
    async with client_of(in_two_pieces, transport) as client:
        for steps in range(50):
            async with anyio.create_task_group() as group:
                for _ in range(4):
                    group.start_soon(ask, client)
                for _ in range(steps):
                    await checkpoint()
                group.cancel_scope.cancel()
            await check_rest(transport, client)


async def test_native_cancellation_releases_the_slot(anyio_backend_name: str) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("only asyncio has it")
    transport = with_two_slots()
    async with client_of(in_two_pieces, transport) as client:
        for steps in range(40):
            tasks = [asyncio.ensure_future(ask(client)) for _ in range(4)]
            for _ in range(steps):
                await checkpoint()
            for _ in range(1 + steps % 3):
                for task in tasks:
                    task.cancel()
                await checkpoint()
            await asyncio.wait(tasks)
            await check_rest(transport, client)


async def test_server_that_closes_after_each_byte_is_an_error(make: Make) -> None:
    async def handler(stream: SocketStream) -> None:
        request = await read_request(stream)
        found = re.search(rb"/(\d+) ", request)
        assert found is not None
        await stream.send(CHUNKED[: int(found[1])])

    async with client_of(handler, make()) as client:
        for cut in range(1, len(CHUNKED)):
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get(f"/{cut}")
        assert b"hello" == (await client.get(f"/{len(CHUNKED)}")).content
