"""Tokens of a function: it is called once, and again after a refusal."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from anyio.abc import SocketStream
from anyio.lowlevel import checkpoint
from attrs import define, field

import kaleden
from _auth.saved import active, save
from kaleden import Failure, FailureKind
from kaleden._auth._tokens import RefreshingToken, Token, ask_function
from support import raw_server, read_request, session_object


@define
class Door:
    """A server that takes one token, and may change which.

    It lists one session, with the status *status*.
    """

    token: str = "first"
    status: str = "Running"
    seen: list[str] = field(factory=list)

    async def serve(self, stream: SocketStream) -> None:
        while True:
            request = (await read_request(stream)).decode()
            [line] = [line for line in request.splitlines() if line.lower().startswith("auth")]
            shown = line.partition("Bearer ")[2]
            self.seen.append(shown)
            good = shown == self.token
            key = request.split(" ")[1].rpartition("/")[2]
            listed = [session_object("a", status=self.status)]
            body = json.dumps(listed if key == "session" else session_object(key))
            status = "200 OK" if good else "401 Unauthorized"
            body = body if good else "unauthorized"
            kind = "application/json" if good else "text/plain"
            head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}"
            await stream.send(f"{head}\r\n\r\n{body}".encode())


@define
class Giver:
    """Gives the tokens it has, one after the other, then the last one for ever."""

    tokens: list[str]
    calls: int = 0

    def plain(self) -> str:
        self.calls += 1
        assert threading.current_thread() is not threading.main_thread()
        return self.tokens[min(self.calls, len(self.tokens)) - 1]

    async def asynchronous(self) -> str:
        self.calls += 1
        await checkpoint()
        return self.tokens[min(self.calls, len(self.tokens)) - 1]


@asynccontextmanager
async def served(door: Door, token: Any) -> AsyncGenerator[kaleden.AsyncSession]:
    async with raw_server(door.serve) as url, kaleden.AsyncSession(url, token) as session:
        yield session


IDS = [f"id{number}" for number in range(100)]


@pytest.mark.parametrize(
    "called",
    [
        lambda giver: giver.plain,
        lambda giver: giver.asynchronous,
        lambda giver: partial(giver.asynchronous),
        lambda giver: lambda: giver.asynchronous(),
    ],
    ids=["plain", "async", "partial", "lambda"],
)
async def test_function_is_called_once_and_after_a_refusal(
    called: Callable[[Giver], Any],
) -> None:
    door, giver = Door(), Giver(["first", "second"])
    async with served(door, called(giver)) as session:
        assert 0 == giver.calls
        assert (await session.info(IDS)).ok
        assert 1 == giver.calls
        door.token = "second"
        assert (await session.info(IDS)).ok
        assert 2 == giver.calls
    # Each refused request was sent once more with the new token.
    assert {"first", "second"} == set(door.seen)
    assert len(door.seen) <= 232


async def test_request_is_resent_once_after_a_refusal() -> None:
    door, giver = Door("nobody knows"), Giver(["first", "second", "third"])
    async with served(door, giver.asynchronous) as session:
        [outcome] = await session.info("a")
    assert isinstance(outcome, Failure)
    assert (FailureKind.NOT_AUTHENTICATED, 401) == (outcome.kind, outcome.status)
    assert ["first", "second"] == door.seen


async def test_unchanged_token_is_not_resent() -> None:
    door, giver = Door("another"), Giver(["first"])
    async with served(door, giver.asynchronous) as session:
        assert not (await session.info("a")).ok
    assert ["first"] == door.seen
    assert 2 == giver.calls


async def test_fixed_token_is_not_resent() -> None:
    door = Door("another")
    async with served(door, "first") as session:
        assert not (await session.info("a")).ok
    assert ["first"] == door.seen


@pytest.mark.parametrize("value", ["a b", "", None, 5, b"token", "token\n"])
async def test_invalid_result_of_the_function_sends_nothing(value: Any) -> None:
    door = Door()
    async with served(door, lambda: value) as session:
        [failure] = (await session.info("a")).failures.values()
    assert (FailureKind.NOT_AUTHENTICATED, False) == (failure.kind, failure.sent)
    assert f"must return the token, a string, and returned {type(value).__name__}: " in (
        failure.message
    )
    assert "printable ASCII characters" in failure.message
    assert [] == door.seen


async def test_error_of_the_function_sends_nothing() -> None:
    async def fail() -> str:
        raise KeyError("keyring")

    door = Door()
    async with served(door, fail) as session:
        [failure] = (await session.info("a")).failures.values()
        created = await session.create("fits", "skaha/astroml:latest")
    assert (FailureKind.NOT_AUTHENTICATED, False) == (failure.kind, failure.sent)
    assert "raised KeyError: 'keyring'" in failure.message
    [failure] = created.failures.values()
    assert (FailureKind.NOT_AUTHENTICATED, False) == (failure.kind, failure.sent)
    assert [] == door.seen


async def test_error_after_a_refusal_is_reported_and_the_next_call_retries(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers: Iterator[Any] = iter(["first", RuntimeError("offline"), "second"])

    def ask() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    door = Door("second")
    async with served(door, ask) as session:
        [failure] = (await session.info("a")).failures.values()
        assert 401 == failure.status
        assert "the server refused the token, and the function" in caplog.text
        assert "first" not in caplog.text
        assert (await session.info("a")).ok
    assert ["first", "second"] == door.seen


async def test_cancelled_refresh_is_taken_over_by_the_next_request() -> None:
    asked = 0

    async def ask() -> str:
        nonlocal asked
        asked += 1
        if asked == 1:
            await anyio.sleep_forever()
        return "token"

    bearer = RefreshingToken(ask_function(ask))
    got: list[str] = []

    async def want() -> None:
        got.append(await bearer.token())

    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as first:
                first.start_soon(bearer.token)
                while asked == 0:
                    await checkpoint()
                group.start_soon(want)
                group.start_soon(want)
                await checkpoint()
                scope.cancel()
    assert (["token", "token"], 2) == (got, asked)


async def test_waiting_requests_share_a_failure() -> None:
    asked = 0

    async def ask() -> Token:
        nonlocal asked
        asked += 1
        await checkpoint()
        raise kaleden.ConfigurationError("no network")

    bearer = RefreshingToken(ask)
    failed = 0

    async def want() -> None:
        nonlocal failed
        with pytest.raises(Exception, match="no network"):
            await bearer.token()
        failed += 1

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(want)
    assert (10, 1) == (failed, asked)


def saved_at(home: Path, url: str, token: str, expires: float | None = None) -> None:
    config = active("other", "srcnet")
    config["servers"]["other"].update(url=url, version="v1")
    config["authentication"]["srcnet"].update(
        token={"access": token}, expiry={"access": expires or time.time() + 3600}
    )
    save(home, config)


async def test_saved_token_that_was_refused_is_read_again(home: Path) -> None:
    door = Door("first")
    async with raw_server(door.serve) as url:
        saved_at(home, url, "first")
        async with kaleden.AsyncSession() as session:
            assert (await session.info("a")).ok
            door.token = "second"
            assert not (await session.info("a")).ok
            saved_at(home, url, "second")
            assert (await session.info("a")).ok
    assert ["first", "first", "first", "second"] == door.seen


@pytest.mark.parametrize("is_saved", [True, False])
async def test_wait_goes_on_with_a_login_that_is_renewed_later(
    home: Path, is_saved: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kaleden._sessions._monitor._poller.REFUSED_INTERVAL", 0.01)
    monkeypatch.setattr("kaleden._sessions._monitor._poller.MIN_INTERVAL", 0.01)
    door, tokens = Door("first"), ["first"]
    async with raw_server(door.serve) as url, anyio.create_task_group() as group:
        saved_at(home, url, "first")
        results: list[kaleden.Outcomes[kaleden.SessionInfo]] = []
        given = kaleden.AsyncSession(url, lambda: tokens[-1])
        async with kaleden.AsyncSession() if is_saved else given as session:

            async def wait() -> None:
                results.append(await session.wait("a"))

            group.start_soon(wait)
            while not door.seen:
                await checkpoint()
            door.token, count = "second", len(door.seen)
            while len(door.seen) < count + 10:
                await checkpoint()
            assert not results
            # Another program renews the login.
            expires = time.time() + 7200
            saved_at(home, url, "second", expires)
            tokens.append("second")
            door.status = "Completed"
            while not results:
                await checkpoint()
            if is_saved:
                shown = session.describe().expires
                assert shown is not None
                assert expires == pytest.approx(shown.timestamp())
    assert results[0].ok


async def test_fixed_token_that_is_refused_later_fails_after_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kaleden._sessions._monitor._poller.REFUSED_INTERVAL", 0.01)
    monkeypatch.setattr("kaleden._sessions._components._FIXED_LOGIN_TIMEOUT", 0.2)
    door = Door("first")
    async with raw_server(door.serve) as url, kaleden.AsyncSession(url, "first") as session:
        assert (await session.fetch())[0].id == "a"
        door.token = "second"
        [failure] = (await session.wait("a")).failures.values()
        assert FailureKind.NOT_AUTHENTICATED is failure.kind
        assert "the bearer token of token= was refused" in failure.message
        assert len(door.seen) > 2


async def test_expired_saved_token_is_read_again_or_reported(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = Door("first")
    async with raw_server(door.serve) as url:
        saved_at(home, url, "first", time.time() + 3600)
        async with kaleden.AsyncSession() as session:
            monkeypatch.setattr(Token, "expired", property(lambda token: token.value == "first"))
            [failure] = (await session.info("a")).failures.values()
            assert (FailureKind.NOT_AUTHENTICATED, False) == (failure.kind, failure.sent)
            assert "run `canfar login`" in failure.message
            assert [] == door.seen
            door.token = "second"
            saved_at(home, url, "second")
            assert (await session.info("a")).ok
            (home / ".canfar" / "config.yaml").unlink()
            door.token = "third"
            assert not (await session.info("a")).ok
            [failure] = (await session.info("a")).failures.values()
            assert "config.yaml cannot be read" in failure.message


async def test_auth_of_httpx_sees_every_request() -> None:
    class Rotating(httpx.Auth):
        def auth_flow(self, request: httpx.Request) -> Any:
            request.headers["Authorization"] = "Bearer first"
            reply = yield request
            if reply.status_code == 401:
                request.headers["Authorization"] = "Bearer second"
                yield request

    door = Door("second")
    async with (
        raw_server(door.serve) as url,
        kaleden.AsyncSession(url, auth=Rotating()) as session,
    ):
        assert (await session.info(["a", "b"])).ok
        assert "httpx auth" == session.describe().credential
    assert ["first", "first", "second", "second"] == sorted(door.seen)
