"""``kaleden doctor``: check the configuration, the server and the login."""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from functools import partial
from statistics import median
from typing import Final, final
from urllib.parse import urlsplit

from attrs import evolve, frozen

from kaleden._auth import EXPLAINED_BY, ConnectionInfo
from kaleden._cli._client import open_session, perform
from kaleden._cli._io import FAILURE, NOT_STARTED, SUCCESS, Output
from kaleden._client._session import AsyncSession, runtime_of
from kaleden._engine import _operations
from kaleden._errors import ConfigurationError, FailureKind, RequestError
from kaleden._results._batch import Failure
from kaleden._version import __version__
from kaleden._wire import Response, SessionInfo, get_converter

CANFAR: Final = "https://ws-uv.canfar.net/skaha"
MAX_SKEW: Final = 30.0
"""Largest difference of the clocks without a warning, in seconds.

The validity of certificates and tokens begins and ends at a second.
"""

_SAMPLES: Final = 5
_LOG_IN_ADVICE: Final = (
    "log in: `canfar login`, or a certificate from `cadc-get-cert`, or a token in CANFAR_TOKEN "
    "(with CANFAR_URL)"
)

_ADVICE: Final = {
    FailureKind.CONNECTION_LOST: "is another server on this port, or is it https, not http?",
    FailureKind.NOT_AUTHORIZED: "the account is known: ask for access to the Science Platform",
    FailureKind.PROTOCOL: f"is the URL right? CANFAR's is {CANFAR}",
    FailureKind.TIMED_OUT: "it is slow or stuck: retry, or set a longer --timeout",
    FailureKind.UNAVAILABLE: "it is temporarily unavailable: retry later",
}


class CheckStatus(StrEnum):
    """The result of a check."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@final
@frozen
class Check:
    """One check of the configuration, the server or the login.

    The attributes are also the keys of the JSON output.

    Attributes:
        what: the subject, such as "login" or "server".
        verdict: the result.
        message: the observation.
        advice: a suggested correction; empty if none is needed.
    """

    what: str
    verdict: CheckStatus
    message: str
    advice: str = ""


def check_login(login: ConnectionInfo, now: datetime | None = None) -> list[Check]:
    """Check the login and the proxy without sending a request."""
    checks: list[Check] = []
    if login.credential == "none":
        checks.append(Check("login", CheckStatus.WARNING, "none was found", _LOG_IN_ADVICE))
    elif login.expires is not None:
        checks.append(_check_expiry(login.expires - (now or datetime.now(UTC))))
    if login.proxy is not None:
        message = f"requests go through {login.proxy}"
        advice = "if the server must be reached directly: add its host to NO_PROXY"
        checks.append(Check("proxy", CheckStatus.OK, message, advice))
    return checks


def _check_expiry(left: timedelta) -> Check:
    hours = left / timedelta(hours=1)
    if hours <= 0:
        return Check("login", CheckStatus.FAILED, "it has expired", _LOG_IN_ADVICE)

    message = f"it is valid for {hours:.0f} hours more"
    if hours < 24:
        advice = "renew it before something long is launched"
        return Check("login", CheckStatus.WARNING, message, advice)

    return Check("login", CheckStatus.OK, message)


@final
class Diagnostics:
    """Checks the server and the account with a few requests that change nothing.

    Args:
        session: an open client without retries.
        login: its configuration.

    Attributes:
        round_trip: the median time of a request, in seconds; None without a response.
    """

    def __init__(self, session: AsyncSession, login: ConnectionInfo) -> None:
        self.round_trip: float | None = None
        self._session = session
        self._login = login

    async def run_checks(self) -> list[Check]:
        """Check the server, and then the account if the server has responded."""
        server = await self._check_server()
        if server[0].verdict is CheckStatus.FAILED and self.round_trip is None:
            return server

        return [*server, await self._check_account(server[0])]

    async def _check_server(self) -> list[Check]:
        began = time.perf_counter()
        try:
            response = await self._send_request()
        except RequestError as error:
            # An error response also shows that the server can be reached.
            if error.failure.status is not None:
                self.round_trip = time.perf_counter() - began
            return [self._make_failed_check("server", error.failure)]

        first = time.perf_counter() - began
        clock = check_clock(response, time.time())
        self.round_trip = await self._measure_round_trip()
        times = f"took {1000 * first:.0f} ms, the next ones {1000 * self.round_trip:.0f} ms"
        message = f"it responds; the first request {times}"
        checks = [Check("server", CheckStatus.OK, message)]
        return checks if clock is None else [*checks, clock]

    async def _measure_round_trip(self) -> float:
        """Return the median time of a few cheap requests, in seconds."""
        took: list[float] = []
        for _ in range(_SAMPLES):
            began = time.perf_counter()
            await self._send_request()
            took.append(time.perf_counter() - began)
        return median(took)

    async def _send_request(self) -> Response:
        runtime = runtime_of(self._session)
        return await runtime.request(_operations.raw_availability(runtime.options.limits))

    async def _check_account(self, server: Check) -> Check:
        began = time.perf_counter()
        try:
            sessions = await self._session.fetch()
        except RequestError as error:
            check = self._make_failed_check("account", error.failure)
            if server.verdict is CheckStatus.OK and error.failure.kind is FailureKind.PROTOCOL:
                version = urlsplit(self._login.url or "").path.rpartition("/")[2]
                advice = f"the server may not support {version}: remove it from the URL"
                return evolve(check, advice=advice)
            return check

        took = 1000 * (time.perf_counter() - began)
        return Check(
            "account", CheckStatus.OK, f"{_count_sessions(sessions)}; listing took {took:.0f} ms"
        )

    def _make_failed_check(self, what: str, failure: Failure) -> Check:
        message = failure.message.removesuffix(f": see {EXPLAINED_BY}")
        return Check(what, CheckStatus.FAILED, message, self._find_advice(failure))

    def _find_advice(self, failure: Failure) -> str:
        """Return a correction for the most common cause of a failure."""
        if failure.kind is FailureKind.CONNECT_FAILED:
            return self._find_connection_advice(failure.message.casefold())

        if failure.kind is FailureKind.NOT_AUTHENTICATED:
            rejected = "it has expired, or is for another server: "
            return f"{'' if self._login.credential == 'none' else rejected}{_LOG_IN_ADVICE}"

        return _ADVICE.get(failure.kind, "the server has failed: retry later")

    def _find_connection_advice(self, message: str) -> str:
        if self._login.proxy is not None:
            proxy = self._login.proxy
            return f"is the proxy {proxy} right? NO_PROXY lists the hosts to reach directly"
        if "wrong version number" in message or "record layer failure" in message:
            return "the server does not use TLS on this port: is the port right, and is it https?"
        if "certificate" in message or "ssl" in message or "tls" in message:
            return (
                "set SSL_CERT_FILE to the authority of the server's certificate; if the server "
                "rejects your certificate, log in again"
            )
        return "is the URL right, is this machine on the network, and does it need a proxy?"


def check_clock(response: Response, now: float) -> Check | None:
    """Compare this machine's clock with the server's.

    The ``Date`` header has a resolution of 1 second (RFC 9110, section 5.6.7).

    Returns:
        None if the response has no valid ``Date`` header.
    """
    try:
        server_time = parsedate_to_datetime(response.headers.get("date", ""))
    except (ValueError, TypeError):
        return None

    off = now - server_time.replace(tzinfo=server_time.tzinfo or UTC).timestamp()
    if abs(off) < MAX_SKEW:
        return Check("clock", CheckStatus.OK, "this machine and the server agree")

    way = "ahead of" if off > 0 else "behind"
    message = f"this machine's is {abs(off):.0f} seconds {way} the server's"
    advice = "correct it: valid certificates and tokens may appear expired, or not yet valid"
    return Check("clock", CheckStatus.WARNING, message, advice)


def _count_sessions(sessions: list[SessionInfo]) -> str:
    counts = Counter(str(info.status) for info in sessions)
    users = sorted({info.user for info in sessions if info.user})
    owner = f" of {', '.join(users)}" if users else ""
    kinds = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    plural = "" if len(sessions) == 1 else "s"
    return f"it has {len(sessions)} session{plural}{owner}" + (f" ({kinds})" if kinds else "")


_MARKS = {CheckStatus.OK: "ok     ", CheckStatus.WARNING: "warning", CheckStatus.FAILED: "FAILED "}


def main(options: argparse.Namespace, output: Output) -> int:
    """Check the configuration, the server and the login."""
    try:
        session = open_session(options, retry=None)
    except (ConfigurationError, OSError) as error:
        _report(None, [Check("login", CheckStatus.FAILED, str(error))], None, output)
        return NOT_STARTED

    return perform(session, partial(_run_checks, output), options, output)


async def _run_checks(output: Output, session: AsyncSession) -> int:
    login = session.describe()
    if not output.json:
        output.write_line(f"{_format_versions()}\n\n{login}\n")
    diagnostics = Diagnostics(session, login)
    checks = [*check_login(login), *await diagnostics.run_checks()]
    _report(login, checks, diagnostics.round_trip, output)
    failed = any(check.verdict is CheckStatus.FAILED for check in checks)
    return FAILURE if failed else SUCCESS


def _report(
    login: ConnectionInfo | None,
    checks: list[Check],
    round_trip: float | None,
    output: Output,
) -> None:
    if output.json:
        output.write_document(
            {
                "versions": _format_versions(),
                "login": None if login is None else get_converter().unstructure(login),
                "round_trip": round_trip,
                "checks": [get_converter().unstructure(check) for check in checks],
            }
        )
        return

    for check in checks:
        output.write_line(f"{_MARKS[check.verdict]}  {check.what}: {check.message}")
        if check.advice:
            output.write_line(f"         {check.advice}")


def _format_versions() -> str:
    return f"kaleden {__version__}, Python {platform.python_version()}, {sys.platform}"
