"""Logins that need httpx: an ``httpx.Auth``, and clients of the caller."""

from __future__ import annotations

import importlib.util
from types import ModuleType
from typing import Any

import anyio
import httpx
import pytest
from anyio.abc import SocketStream
from attrs import define, field

import kaleden
from _http.servers import describe, reply
from kaleden import ConfigurationError, Failure, FailureKind
from support import raw_server, read_request

LIBRARIES = [name for name in ("httpx", "httpx2") if importlib.util.find_spec(name)]


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(request.param)


@define
class Listener:
    """Answers every request in the same way, and remembers them."""

    answer: bytes = field(factory=lambda: reply(b"[]"))
    seen: list[str] = field(factory=list)

    async def serve(self, stream: SocketStream) -> None:
        while True:
            self.seen.append((await read_request(stream)).decode())
            created = self.seen[-1].startswith("POST")
            # Each create gets an id of its own, or the client would look for the right one.
            await stream.send(reply(b"id%d\n" % len(self.seen)) if created else self.answer)


async def test_client_brings_its_url_headers_and_auth(library: ModuleType) -> None:
    listener = Listener()
    async with (
        raw_server(listener.serve) as url,
        library.AsyncClient(
            base_url=f"{url}/v1", headers={"X-Ours": "1"}, auth=("ada", "pw"), cookies={"a": "b"}
        ) as client,
    ):
        async with kaleden.AsyncSession(client=client) as session:
            assert [] == await session.fetch()
            await session.create("fits", "skaha/astroml:latest", replicas=2)
            login = session.describe()
            assert session.statistics().transport is None
        # It is the caller's to close.
        assert 200 == (await client.get("session")).status_code
    assert (f"{url}/v1", "base_url of client=") == (login.url, login.url_from)
    assert ("httpx client", "client=") == (login.credential, login.credential_from)
    first, *_ = listener.seen
    assert first.startswith("GET /skaha/v1/session HTTP/1.1\r\n")
    for line in ("x-ours: 1", "authorization: basic ", "cookie: a=b", "accept: application/json"):
        assert f"\r\n{line}" in first.lower()
    posts = [request for request in listener.seen if request.startswith("POST")]
    assert 2 == len(posts)
    assert all("&image=" in request for request in posts)


async def test_url_may_differ_from_the_base_url_of_the_client(library: ModuleType) -> None:
    listener = Listener()
    async with raw_server(listener.serve) as url, library.AsyncClient() as client:
        with pytest.raises(ConfigurationError, match="no base_url"):
            kaleden.AsyncSession(client=client)
        async with kaleden.AsyncSession(f"{url}/v0", client=client) as session:
            assert [] == await session.fetch()
    assert listener.seen[0].startswith("GET /skaha/v0/session HTTP/1.1\r\n")


class Odd(httpx.AsyncClient):
    """A class of the caller's own."""


async def test_subclass_of_a_client_is_accepted() -> None:
    async with raw_server(describe) as url, Odd() as client:
        async with kaleden.AsyncSession(url, client=client) as session:
            assert (await session.info("a")).ok


def test_other_objects_as_client_are_refused() -> None:
    class Client:
        base_url = "https://host.example/skaha"

    for client in (Client(), httpx.Client(), object()):
        for url in (None, "https://host.example/skaha"):
            with pytest.raises(ConfigurationError, match=r"httpx2\.AsyncClient"):
                kaleden.AsyncSession(url, client=client)  # type: ignore[arg-type]


def test_client_goes_with_no_other_login_or_proxy() -> None:
    client = httpx.AsyncClient(base_url="https://host.example/skaha")
    for others in (
        {"token": "t"},
        {"certificate": "c"},
        {"auth": httpx.BasicAuth("a", "b")},
        {"proxy": "http://host:1"},
        {"server": "canfar"},
    ):
        with pytest.raises(ConfigurationError, match="without"):
            kaleden.AsyncSession(client=client, **others)


def test_credentials_of_a_client_go_to_its_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANFAR_URL", "https://elsewhere.example/skaha")
    monkeypatch.setenv("CANFAR_TOKEN", "token")
    client = httpx.AsyncClient(base_url="https://host.example/skaha")
    login = kaleden.AsyncSession(client=client).describe()
    assert ("https://host.example/skaha/v1", "httpx client") == (login.url, login.credential)


@pytest.mark.parametrize(
    ("fault", "kind", "sent"),
    [
        ("ConnectError", FailureKind.CONNECT_FAILED, False),
        ("ConnectTimeout", FailureKind.CONNECT_FAILED, False),
        ("PoolTimeout", FailureKind.CONNECT_FAILED, False),
        ("ProxyError", FailureKind.CONNECT_FAILED, False),
        ("UnsupportedProtocol", FailureKind.CONNECT_FAILED, False),
        ("InvalidURL", FailureKind.CONNECT_FAILED, False),
        ("ReadTimeout", FailureKind.TIMED_OUT, True),
        ("WriteTimeout", FailureKind.TIMED_OUT, True),
        ("ReadError", FailureKind.CONNECTION_LOST, True),
        ("WriteError", FailureKind.CONNECTION_LOST, True),
        ("RemoteProtocolError", FailureKind.PROTOCOL, True),
        ("TooManyRedirects", FailureKind.PROTOCOL, True),
    ],
)
async def test_exceptions_of_either_library_become_failures(
    library: ModuleType, fault: str, kind: FailureKind, sent: bool
) -> None:
    def fail(request: Any) -> Any:
        raise getattr(library, fault)("it broke")

    transport = library.MockTransport(fail)
    async with library.AsyncClient(transport=transport) as client:
        url = "https://h.example/skaha"
        async with kaleden.AsyncSession(url, client=client, retry=None) as session:
            [failure] = (await session.logs("a")).failures.values()
    assert isinstance(failure, Failure)
    assert (kind, sent) == (failure.kind, failure.sent)
    assert f"{fault}: it broke" == failure.message


async def test_client_follows_no_redirect_of_a_session(library: ModuleType) -> None:
    moved = reply(b"", b"location: https://elsewhere.example/", status=b"302 Found")
    listener = Listener(moved)
    async with (
        raw_server(listener.serve) as url,
        library.AsyncClient(follow_redirects=True) as client,
        kaleden.AsyncSession(url, client=client) as session,
    ):
        [failure] = (await session.logs("a")).failures.values()
    assert FailureKind.PROTOCOL == failure.kind
    assert "redirects are not followed" in failure.message


async def test_cancelled_call_leaves_the_client_usable(library: ModuleType) -> None:
    stall = anyio.Event()

    async def serve(stream: SocketStream) -> None:
        while True:
            request = await read_request(stream)
            if b"/stalled" in request:
                stall.set()
                await anyio.sleep_forever()
            await stream.send(reply(b"a log", b"content-type: text/plain"))

    limits = library.Limits(max_connections=1)
    async with raw_server(serve) as url, library.AsyncClient(limits=limits) as client:
        async with kaleden.AsyncSession(url, client=client) as session:
            async with anyio.create_task_group() as group:
                group.start_soon(session.logs, "stalled")
                await stall.wait()
                group.cancel_scope.cancel()
            with anyio.fail_after(60):
                assert ["a log"] == (await session.logs("next")).values


async def test_auth_sees_each_request_and_its_body() -> None:
    class Signing(httpx.Auth):
        requires_request_body = True

        def auth_flow(self, request: httpx.Request) -> Any:
            request.headers["X-Length"] = str(len(request.content))
            response = yield request
            if response.status_code == 401:
                request.headers["X-Second"] = "1"
                yield request

    seen: list[str] = []

    async def serve(stream: SocketStream) -> None:
        while True:
            seen.append((await read_request(stream)).decode())
            if "x-second" not in seen[-1].lower():
                await stream.send(reply(b"", status=b"401 No"))
            else:
                await stream.send(reply(b"id1\n" if seen[-1].startswith("POST") else b"[]"))

    async with raw_server(serve) as url:
        async with kaleden.AsyncSession(url, auth=Signing(), settle=0.1) as session:
            assert [] == await session.fetch()
            assert (await session.create("fits", "skaha/astroml:latest")).ok
    posts = [request for request in seen if request.startswith("POST")]
    assert 2 == len(posts)
    for post in posts:
        length = len(post.partition("\r\n\r\n")[2])
        assert f"\r\nx-length: {length}\r\n" in post.lower()
        assert length > 0


def test_other_objects_as_auth_are_refused() -> None:
    for auth in (("ada", "pw"), 5):
        with pytest.raises(ConfigurationError, match=r"httpx\.BasicAuth"):
            kaleden.AsyncSession("https://host.example", auth=auth)  # type: ignore[arg-type]
