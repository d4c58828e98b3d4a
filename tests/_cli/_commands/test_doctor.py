"""``kaleden doctor`` detects common problems and suggests corrections."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest
from attrs import evolve

import kaleden
from _cli.invocation import UNREACHABLE, Caller, connection_options
from kaleden import ConnectionInfo
from kaleden._cli._commands._doctor import Check, CheckStatus, Diagnostics, check_clock, check_login
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
def silent_server() -> Iterator[str]:
    """Yield the URL of a server that accepts connections and never responds."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/skaha"


@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_working_configuration_passes_all_checks(
    backend: str, server: Server, call: Caller
) -> None:
    result = call("doctor", "--backend", backend)
    assert (0, "") == (result.status, result.err)
    assert server.url in result.out
    assert "ok       server: it responds; the first request took " in result.out
    assert "ok       clock: this machine and the server agree" in result.out
    assert "ok       account: it has 0 sessions" in result.out
    assert server.token not in result.out


def test_json_output_is_one_document(server: Server, call: Caller) -> None:
    result = call("doctor", "--json")
    report = result.document
    assert ["ok"] * 3 == [check["verdict"] for check in report["checks"]]
    assert f"{server.url}/v1" == report["login"]["url"]
    assert 0 < report["round_trip"]
    assert server.token not in result.out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (UNREACHABLE, ["FAILED   server: no connection to 127.0.0.1 port 1", "is the URL right"]),
        (UNREACHABLE[:2], ["warning  login: none was found", "`canfar login`"]),
    ],
    ids=["unreachable", "no login"],
)
def test_unreachable_server_is_reported(
    arguments: list[str], expected: list[str], call_alone: Caller
) -> None:
    result = call_alone("doctor", *arguments)
    assert (1, "") == (result.status, result.err)
    assert all(each in result.out for each in expected), result.out


def test_silent_server_is_reported(silent_server: str, call_alone: Caller) -> None:
    result = call_alone("doctor", "--url", silent_server, "--timeout", "0.2")
    assert 1 == result.status
    assert "FAILED   server: no complete response within 0.2 seconds" in result.out
    assert "--timeout" in result.out


@pytest.mark.parametrize(
    ("url", "arguments", "expected"),
    [
        ("{}", ["--token", "wrong"], "it has expired, or is for another server"),
        ("{}", [], "`canfar login`"),
        ("{}/v7", ["--token", "any"], "may not support v7"),
        ("{}-not", ["--token", "any"], "is the URL right? CANFAR's is https://ws-uv.canfar.net"),
    ],
    ids=["rejected", "anonymous", "version", "path"],
)
def test_common_mistakes_are_explained(
    url: str, arguments: list[str], expected: str, server: Server, call_alone: Caller
) -> None:
    result = call_alone("doctor", "--url", url.format(server.url), *arguments)
    assert 1 == result.status
    assert expected in result.out
    assert "describe()" not in result.out


def test_https_url_of_http_server_is_explained(server: Server, call_alone: Caller) -> None:
    url = server.url.replace("http:", "https:")
    result = call_alone("doctor", "--url", url, "--token", "any")
    assert 1 == result.status
    assert "the server does not use TLS on this port" in result.out


@pytest.mark.parametrize(
    "arguments", [["--url", "ftp://x"], [], ["--certificate", "/nonexistent"]], ids=" ".join
)
def test_invalid_configuration_is_a_failed_check(arguments: list[str], call_alone: Caller) -> None:
    result = call_alone("doctor", *arguments)
    assert (2, "") == (result.status, result.err)
    assert result.out.startswith("FAILED   login: ")
    report = call_alone("doctor", *arguments, "--json").document
    assert ["failed"] == [check["verdict"] for check in report["checks"]]


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
def test_login_is_checked_without_requests(
    changes: dict[str, Any], expected: list[CheckStatus]
) -> None:
    checks = check_login(evolve(LOGIN, **changes), NOW)
    assert expected == [check.verdict for check in checks]


@pytest.mark.parametrize(
    ("off", "verdict"), [(0, CheckStatus.OK), (29, CheckStatus.OK), (-600, CheckStatus.WARNING)]
)
def test_wrong_clock_is_detected(off: float, verdict: CheckStatus) -> None:
    response = Response(200, {"date": "Thu, 01 Jan 2026 00:00:00 GMT"}, b"")
    check = check_clock(response, NOW.timestamp() + off)
    assert check is not None
    assert verdict is check.verdict
    assert ("600 seconds behind" in check.message) == (off == -600)


@pytest.mark.parametrize("date", [{}, {"date": ""}, {"date": "yesterday"}])
def test_missing_date_header_skips_clock_check(date: dict[str, str]) -> None:
    assert check_clock(Response(200, date, b""), 0) is None


ANONYMOUS = "unexpected exception: cannot get group memberships for anonymous"


@pytest.mark.parametrize(
    ("response", "changes", "expected"),
    [
        (text(ANONYMOUS, 400), {"credential": "none"}, "log in: "),
        (text("Not authorized to use the skaha system", 403), {}, "ask for access"),
        (text("unexpected exception", 500), {}, "retry later"),
        (text("maintenance", 503), {}, "temporarily unavailable"),
        (text("<html>hello</html>", 200), {}, "may not support v1"),
    ],
    ids=["anonymous", "not authorized", "error", "maintenance", "page"],
)
@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_error_response_is_explained(
    response: Response, changes: dict[str, Any], expected: str, backend: str
) -> None:
    async def answer(request: Request) -> Response:
        return text("<availability/>") if request.target == "availability" else response

    async def run_checks() -> list[Check]:
        async with kaleden.AsyncSession(transport=FakeTransport(answer), retry=None) as session:
            return await Diagnostics(session, evolve(LOGIN, **changes)).run_checks()

    *_, account = anyio.run(run_checks, backend=backend)
    assert ("account", CheckStatus.FAILED) == (account.what, account.verdict)
    assert expected in account.advice


def test_unreachable_proxy_is_explained(
    monkeypatch: pytest.MonkeyPatch, call_alone: Caller
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    result = call_alone("doctor", "--url", "https://host.example/skaha", "--token", "any")
    assert 1 == result.status
    assert "ok       proxy: requests go through http://127.0.0.1:1" in result.out
    assert "is the proxy http://127.0.0.1:1 right?" in result.out


def test_sessions_of_user_are_counted(server: Server, call: Caller) -> None:
    assert 0 == call("run", "counted", "skaha/astroml:latest", "--detach", "--", "true").status
    assert "it has 1 session of local" in call("doctor", *connection_options(server)).out
