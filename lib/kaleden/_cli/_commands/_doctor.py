"""``kaleden doctor``: how the server is reached, who asks, and what is wrong with it."""

from __future__ import annotations

import argparse
import platform
import sys
from functools import partial

from kaleden._auth import Login
from kaleden._cli._client import open_session, perform
from kaleden._cli._commands._checks import Examination, Finding, Verdict, check_login
from kaleden._cli._io import Output
from kaleden._cli._status import DONE, NOT_ALL, REFUSED
from kaleden._client._session import AsyncSession
from kaleden._errors import ConfigurationError
from kaleden._version import __version__
from kaleden._wire import converter

_MARKS = {Verdict.OK: "ok     ", Verdict.WARNING: "warning", Verdict.FAILED: "FAILED "}


def main(options: argparse.Namespace, output: Output) -> int:
    """Examine what the options, the environment and the files of this user say."""
    try:
        session = open_session(options, retry=None)
    except (ConfigurationError, OSError) as error:
        finding = Finding("login", Verdict.FAILED, str(error), "")
        _tell(None, [finding], None, output)
        return REFUSED

    return perform(session, partial(_examine, output), options, output)


async def _examine(output: Output, session: AsyncSession) -> int:
    login = session.describe()
    if not output.json:
        output.line(f"{_versions()}\n\n{login}\n")
    examination = Examination(session, login)
    findings = [*check_login(login), *await examination.findings()]
    _tell(login, findings, examination, output)
    failed = any(finding.verdict is Verdict.FAILED for finding in findings)
    return NOT_ALL if failed else DONE


def _tell(
    login: Login | None,
    findings: list[Finding],
    examination: Examination | None,
    output: Output,
) -> None:
    if output.json:
        output.document(
            {
                "versions": _versions(),
                "login": None if login is None else converter().unstructure(login),
                "round_trip": None if examination is None else examination.round_trip,
                "checks": [converter().unstructure(finding) for finding in findings],
            }
        )
        return

    for finding in findings:
        output.line(f"{_MARKS[finding.verdict]}  {finding.what}: {finding.message}")
        if finding.advice:
            output.line(f"         {finding.advice}")


def _versions() -> str:
    return f"kaleden {__version__}, Python {platform.python_version()}, {sys.platform}"
