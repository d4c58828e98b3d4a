"""``kaleden doctor`` finds what is wrong, and says what to do."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest
from attrs import evolve

import kaleden
from _cli.called import NOWHERE, Caller, where
from kaleden import ConnectionInfo
from kaleden._cli._commands._doctor import Check, CheckStatus, Diagnostics, check_login, judge_clock
from kaleden._wire import Request, Response
from platforms import Server
from support import PLAIN_BACKENDS, FakeTransport, text

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LOGIN = ConnectionInfo(
    url="https://host.example/skaha/v1",
    url_from="url=",
    credential="bearer token",
    credential_from="token=",
    expires=None,
    registry_user=None,
    proxy=None,
    concurrency=32,
    timeout=30.0,
    create_concurrency=8,
    create_timeout=180.0,
)


@pytest.fixture
def deaf() -> Iterator[str]:
    """The URL of somebody who takes calls, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/skaha"


@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_all_is_well(backend: str, server: Server, call: Caller) -> None:
    done = call("doctor", "--backend", backend)
    assert (0, "") == (done.status, done.err)
    assert server.url in done.out
    assert "ok       server: it answers; the first request took " in done.out
    assert "ok       clock: the server's and this machine's agree" in done.out
    assert "ok       account: it has 0 sessions" in done.out
    assert server.token not in done.out


def test_json_is_one_document(server: Server, call: Caller) -> None:
    done = call("doctor", "--json")
    report = done.document
    assert ["ok"] * 3 == [check["verdict"] for check in report["checks"]]
    assert f"{server.url}/v1" == report["login"]["url"]
    assert 0 < report["round_trip"]
    assert server.token not in done.out


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (NOWHERE, ["FAILED   server: no connection to 127.0.0.1 port 1", "is the URL right"]),
        (NOWHERE[:2], ["warning  login: none was found", "`canfar login`"]),
    ],
    ids=["nobody", "no login"],
)
def test_a_server_that_is_not_there(words: list[str], named: list[str], call_alone: Caller) -> None:
    done = call_alone("doctor", *words)
    assert (1, "") == (done.status, done.err)
    assert all(each in done.out for each in named), done.out


def test_a_server_that_says_nothing(deaf: str, call_alone: Caller) -> None:
    done = call_alone("doctor", "--url", deaf, "--timeout", "0.2")
    assert 1 == done.status
    assert "FAILED   server: no complete response within 0.2 seconds" in done.out
    assert "--timeout" in done.out


@pytest.mark.parametrize(
    ("url", "words", "named"),
    [
        ("{}", ["--token", "wrong"], "it has expired, or is for another server"),
        ("{}", [], "`canfar login`"),
        ("{}/v7", ["--token", "any"], "may have no v7"),
        ("{}-not", ["--token", "any"], "is the URL right? CANFAR's is https://ws-uv.canfar.net"),
    ],
    ids=["refused", "anonymous", "version", "path"],
)
def test_the_usual_mistakes_are_named(
    url: str, words: list[str], named: str, server: Server, call_alone: Caller
) -> None:
    done = call_alone("doctor", "--url", url.format(server.url), *words)
    assert 1 == done.status
    assert named in done.out
    assert "describe()" not in done.out


def test_https_where_none_is_spoken(server: Server, call_alone: Caller) -> None:
    url = server.url.replace("http:", "https:")
    done = call_alone("doctor", "--url", url, "--token", "any")
    assert 1 == done.status
    assert "no TLS is spoken there" in done.out


@pytest.mark.parametrize(
    "words", [["--url", "ftp://x"], [], ["--certificate", "/nonexistent"]], ids=" ".join
)
def test_what_cannot_begin_is_a_finding_too(words: list[str], call_alone: Caller) -> None:
    done = call_alone("doctor", *words)
    assert (2, "") == (done.status, done.err)
    assert done.out.startswith("FAILED   login: ")
    report = call_alone("doctor", *words, "--json").document
    assert ["failed"] == [check["verdict"] for check in report["checks"]]


def verdicts(findings: list[Check]) -> list[CheckStatus]:
    return [finding.verdict for finding in findings]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"credential": "none"}, [CheckStatus.WARNING]),
        ({"expires": NOW + timedelta(days=20)}, [CheckStatus.OK]),
        ({"expires": NOW + timedelta(hours=2)}, [CheckStatus.WARNING]),
        ({"expires": NOW - timedelta(seconds=1)}, [CheckStatus.FAILED]),
        ({"proxy": "http://proxy.example:3128"}, [CheckStatus.OK]),
    ],
)
def test_a_login_is_judged_before_anything_is_sent(
    changes: dict[str, Any], expected: list[CheckStatus]
) -> None:
    assert expected == verdicts(check_login(evolve(LOGIN, **changes), NOW))


@pytest.mark.parametrize(
    ("off", "verdict"), [(0, CheckStatus.OK), (29, CheckStatus.OK), (-600, CheckStatus.WARNING)]
)
def test_a_clock_that_is_wrong_is_noticed(off: float, verdict: CheckStatus) -> None:
    response = Response(200, {"date": "Thu, 01 Jan 2026 00:00:00 GMT"}, b"")
    finding = judge_clock(response, NOW.timestamp() + off)
    assert finding is not None
    assert verdict is finding.verdict
    assert ("600 seconds behind" in finding.message) == (off == -600)


@pytest.mark.parametrize("date", [{}, {"date": ""}, {"date": "yesterday"}])
def test_a_server_that_tells_no_time_is_not_judged(date: dict[str, str]) -> None:
    assert judge_clock(Response(200, date, b""), 0) is None


ANONYMOUS = "unexpected exception: cannot get group memberships for anonymous"


@pytest.mark.parametrize(
    ("reply", "changes", "named"),
    [
        (text(ANONYMOUS, 400), {"credential": "none"}, "log in: "),
        (text("Not authorized to use the skaha system", 403), {}, "ask for access"),
        (text("unexpected exception", 500), {}, "try again later"),
        (text("maintenance", 503), {}, "come back later"),
        (text("<html>hello</html>", 200), {}, "may have no v1"),
    ],
    ids=["anonymous", "stranger", "broken", "maintenance", "page"],
)
@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_what_the_server_answers_is_explained(
    reply: Response, changes: dict[str, Any], named: str, backend: str
) -> None:
    async def answer(request: Request) -> Response:
        return text("<availability/>") if request.target == "availability" else reply

    async def examine() -> list[Check]:
        async with kaleden.AsyncSession(transport=FakeTransport(answer), retry=None) as session:
            return await Diagnostics(session, evolve(LOGIN, **changes)).findings()

    *_, account = anyio.run(examine, backend=backend)
    assert ("account", CheckStatus.FAILED) == (account.what, account.verdict)
    assert named in account.advice


def test_a_proxy_is_suspected_first(monkeypatch: pytest.MonkeyPatch, call_alone: Caller) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    done = call_alone("doctor", "--url", "https://host.example/skaha", "--token", "any")
    assert 1 == done.status
    assert "ok       proxy: requests go through http://127.0.0.1:1" in done.out
    assert "is the proxy http://127.0.0.1:1 right?" in done.out


def test_who_has_sessions_is_told_how_many(server: Server, call: Caller) -> None:
    assert 0 == call("run", "counted", "skaha/astroml:latest", "--detach", "--", "true").status
    assert "it has 1 session of local" in call("doctor", *where(server)).out
