"""``kaleden doctor``: how the server is reached, who asks, and what is wrong with it."""

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

from attrs import frozen

from kaleden._auth import EXPLAINED_BY, ConnectionInfo
from kaleden._cli._client import open_session, perform
from kaleden._cli._io import DONE, NOT_ALL, REFUSED, Output
from kaleden._client._session import AsyncSession, runtime_of
from kaleden._engine import _operations
from kaleden._errors import ConfigurationError, FailureKind, RequestError
from kaleden._results._batch import Failure
from kaleden._version import __version__
from kaleden._wire import Response, SessionInfo, get_converter

CANFAR: Final = "https://ws-uv.canfar.net/skaha"
SKEW: Final = 30.0
"""Seconds that a clock may be off; certificates and tokens are valid from and until some second."""

_TRIPS: Final = 5
_LOG_IN: Final = (
    "log in: `canfar login`, or a certificate from `cadc-get-cert`, or a token in CANFAR_TOKEN "
    "(with CANFAR_URL)"
)

_ADVICE: Final = {
    FailureKind.CONNECTION_LOST: "does something else listen there, or is it https, not http?",
    FailureKind.NOT_AUTHORIZED: "the account is known: ask for access to the Science Platform",
    FailureKind.PROTOCOL: f"is the URL right? CANFAR's is {CANFAR}",
    FailureKind.TIMED_OUT: "it is slow or stuck: try again, or give it longer with --timeout",
    FailureKind.UNAVAILABLE: "it asks to come back later",
}


class CheckStatus(StrEnum):
    """How something stands."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@final
@frozen
class Check:
    """What was found out about one thing.

    Attributes:
        what: the thing.
        verdict: how it stands.
        message: what was seen.
        advice: what to do; empty where nothing is to be done.
    """

    what: str
    verdict: CheckStatus
    message: str
    advice: str = ""


def check_login(login: ConnectionInfo, now: datetime | None = None) -> list[Check]:
    """Judge what is known before anything is sent."""
    found: list[Check] = []
    if login.credential == "none":
        found.append(Check("login", CheckStatus.WARNING, "none was found", _LOG_IN))
    elif login.expires is not None:
        found.append(_judge_expiry(login.expires - (now or datetime.now(UTC))))
    if login.proxy is not None:
        advice = "if the server is not behind it: name the server in NO_PROXY"
        found.append(Check("proxy", CheckStatus.OK, f"requests go through {login.proxy}", advice))
    return found


def _judge_expiry(left: timedelta) -> Check:
    hours = left / timedelta(hours=1)
    if hours <= 0:
        return Check("login", CheckStatus.FAILED, "it has expired", _LOG_IN)

    message = f"it is valid for {hours:.0f} hours more"
    if hours < 24:
        advice = "renew it before something long is launched"
        return Check("login", CheckStatus.WARNING, message, advice)

    return Check("login", CheckStatus.OK, message)


@final
class Diagnostics:
    """Asks the server a few things that change nothing.

    Args:
        session: the client, open, which tries nothing again.
        login: what it tells of itself.

    Attributes:
        round_trip: the median of some requests, in seconds; None if there was no answer.
    """

    def __init__(self, session: AsyncSession, login: ConnectionInfo) -> None:
        self.round_trip: float | None = None
        self._session = session
        self._login = login

    async def findings(self) -> list[Check]:
        """Ask whether the server is there, and then who is asking."""
        server = await self._check_server()
        if server[0].verdict is CheckStatus.FAILED and self.round_trip is None:
            return server

        return [*server, await self._check_account(server[0])]

    async def _check_server(self) -> list[Check]:
        began = time.perf_counter()
        try:
            response = await self._ask()
        except RequestError as error:
            # It has answered, if not as it should.
            if error.failure.status is not None:
                self.round_trip = time.perf_counter() - began
            return [self._explained("server", error.failure)]

        first = time.perf_counter() - began
        clock = judge_clock(response, time.time())
        self.round_trip = await self._measure()
        message = (
            f"it answers; the first request took {1000 * first:.0f} ms, the next ones "
            f"{1000 * self.round_trip:.0f} ms"
        )
        found = [Check("server", CheckStatus.OK, message)]
        return found if clock is None else [*found, clock]

    async def _measure(self) -> float:
        """Time some requests that the server answers from its memory."""
        took: list[float] = []
        for _ in range(_TRIPS):
            began = time.perf_counter()
            await self._ask()
            took.append(time.perf_counter() - began)
        return median(took)

    async def _ask(self) -> Response:
        runtime = runtime_of(self._session)
        return await runtime.request(_operations.raw_availability(runtime.options.limits))

    async def _check_account(self, server: Check) -> Check:
        began = time.perf_counter()
        try:
            sessions = await self._session.fetch()
        except RequestError as error:
            finding = self._explained("account", error.failure)
            version = _version(self._login)
            if server.verdict is CheckStatus.OK and error.failure.kind is FailureKind.PROTOCOL:
                advice = f"the server is there, and may have no {version}: leave it out of the URL"
                return Check("account", CheckStatus.FAILED, finding.message, advice)
            return finding

        took = 1000 * (time.perf_counter() - began)
        return Check(
            "account", CheckStatus.OK, f"{_counted(sessions)}; to list them took {took:.0f} ms"
        )

    def _explained(self, what: str, failure: Failure) -> Check:
        message = failure.message.removesuffix(f": see {EXPLAINED_BY}")
        return Check(what, CheckStatus.FAILED, message, self._advice(failure))

    def _advice(self, failure: Failure) -> str:
        """Name the mistake that is usually behind a failure."""
        if failure.kind is FailureKind.CONNECT_FAILED:
            return self._connection_advice(failure.message.casefold())

        if failure.kind is FailureKind.NOT_AUTHENTICATED:
            refused = "it has expired, or is for another server: "
            return f"{'' if self._login.credential == 'none' else refused}{_LOG_IN}"

        return _ADVICE.get(failure.kind, "the server has failed: try again later")

    def _connection_advice(self, message: str) -> str:
        if self._login.proxy is not None:
            proxy = self._login.proxy
            return f"is the proxy {proxy} right? NO_PROXY names the servers that need none"
        if "wrong version number" in message or "record layer failure" in message:
            return "no TLS is spoken there: is the port right, and is it https?"
        if "certificate" in message or "ssl" in message or "tls" in message:
            return (
                "point SSL_CERT_FILE to the authority of the server's certificate; if it is yours "
                "that is refused, log in again"
            )
        return "is the URL right, is this machine on the network, and is there a proxy to name?"


def judge_clock(response: Response, now: float) -> Check | None:
    """Compare this machine's clock with the server's, which tells whole seconds."""
    try:
        theirs = parsedate_to_datetime(response.headers.get("date", ""))
    except (ValueError, TypeError):
        return None

    off = now - theirs.replace(tzinfo=theirs.tzinfo or UTC).timestamp()
    if abs(off) < SKEW:
        return Check("clock", CheckStatus.OK, "the server's and this machine's agree")

    way = "ahead of" if off > 0 else "behind"
    message = f"this machine's is {abs(off):.0f} seconds {way} the server's"
    advice = "set it: certificates and tokens that are valid may look expired, or not valid yet"
    return Check("clock", CheckStatus.WARNING, message, advice)


def _version(login: ConnectionInfo) -> str:
    return urlsplit(login.url or "").path.rpartition("/")[2]


def _counted(sessions: list[SessionInfo]) -> str:
    counts = Counter(str(info.status) for info in sessions)
    users = sorted({info.user for info in sessions if info.user})
    who = f" of {', '.join(users)}" if users else ""
    kinds = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    plural = "" if len(sessions) == 1 else "s"
    return f"it has {len(sessions)} session{plural}{who}" + (f" ({kinds})" if kinds else "")


_MARKS = {CheckStatus.OK: "ok     ", CheckStatus.WARNING: "warning", CheckStatus.FAILED: "FAILED "}


def main(options: argparse.Namespace, output: Output) -> int:
    """Examine what the options, the environment and the files of this user say."""
    try:
        session = open_session(options, retry=None)
    except (ConfigurationError, OSError) as error:
        finding = Check("login", CheckStatus.FAILED, str(error), "")
        _tell(None, [finding], None, output)
        return REFUSED

    return perform(session, partial(_examine, output), options, output)


async def _examine(output: Output, session: AsyncSession) -> int:
    login = session.describe()
    if not output.json:
        output.line(f"{_versions()}\n\n{login}\n")
    examination = Diagnostics(session, login)
    findings = [*check_login(login), *await examination.findings()]
    _tell(login, findings, examination, output)
    failed = any(finding.verdict is CheckStatus.FAILED for finding in findings)
    return NOT_ALL if failed else DONE


def _tell(
    login: ConnectionInfo | None,
    findings: list[Check],
    examination: Diagnostics | None,
    output: Output,
) -> None:
    if output.json:
        output.document(
            {
                "versions": _versions(),
                "login": None if login is None else get_converter().unstructure(login),
                "round_trip": None if examination is None else examination.round_trip,
                "checks": [get_converter().unstructure(finding) for finding in findings],
            }
        )
        return

    for finding in findings:
        output.line(f"{_MARKS[finding.verdict]}  {finding.what}: {finding.message}")
        if finding.advice:
            output.line(f"         {finding.advice}")


def _versions() -> str:
    return f"kaleden {__version__}, Python {platform.python_version()}, {sys.platform}"
