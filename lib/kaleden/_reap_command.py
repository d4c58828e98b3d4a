"""``kaleden reap``: end what killed processes left, from the command line."""

from __future__ import annotations

import argparse
import math
from typing import Protocol

import anyio

from kaleden._ledger_file import OpenLaunch
from kaleden._outcomes import Failure, Outcomes
from kaleden._policy import Limits
from kaleden._reap import Survey, doubt, survey
from kaleden._session import AsyncSession


class Commands(Protocol):
    """What argparse makes for the commands of a program."""

    def add_parser(self, name: str, *, help: str) -> argparse.ArgumentParser:  # noqa: A002  # argparse's name
        """Add a command."""
        ...


def add_parser(commands: Commands) -> None:
    """Add the command to those of ``kaleden``."""
    parser = commands.add_parser(
        "reap", help="end the sessions that a ledger says were left by processes that are gone"
    )
    parser.add_argument("path", metavar="PATH", help="the ledger")
    parser.add_argument(
        "--url", help="the Skaha server; by default it and the login are found as Session() does"
    )
    parser.add_argument("--token", help="a bearer token for --url")
    parser.add_argument("--dry-run", action="store_true", help="only tell what is left")
    parser.add_argument(
        "--elsewhere",
        action="store_true",
        help="end also what was launched on other machines or in other containers, where nobody "
        "can tell from here whether the launching process is gone",
    )
    parser.add_argument(
        "--settle",
        type=_seconds,
        default=Limits().create_timeout,
        metavar="SECONDS",
        help="how long after its launch a session may yet appear (%(default)g)",
    )
    parser.set_defaults(command=reap_command)


def reap_command(options: argparse.Namespace) -> int:
    """Do what the command line says.

    Returns:
        The exit status: 0 if nothing is left, 1 if something is.
    """
    session = AsyncSession(options.url, options.token)
    found = survey(options.path, session.describe().url or "")
    launches = found.dead + (found.unknown if options.elsewhere else [])
    _tell_survey(found, launches)
    if not launches:
        return 0

    if options.dry_run:
        return 1

    _tell_wait(launches, options.settle)
    outcomes = anyio.run(_reap, session, options)
    for outcome in outcomes:
        _say(f"failed: {outcome}" if isinstance(outcome, Failure) else f"ended: {outcome.key}")
    return 0 if outcomes.ok else 1


async def _reap(session: AsyncSession, options: argparse.Namespace) -> Outcomes[bool]:
    async with session:
        return await session.reap(options.path, elsewhere=options.elsewhere, settle=options.settle)


def _tell_survey(found: Survey, launches: list[OpenLaunch]) -> None:
    """Tell what is open, and what of it is passed over and why."""
    for launch in launches:
        session = launch.session_id or "no id known"
        _say(
            f"left: {launch.name} ({session}), by process {launch.owner.pid} of {launch.owner.host}"
        )
    if not launches:
        _say("nothing is left that is to be ended")
    if found.alive:
        _say(f"passed over: {len(found.alive)} launches of processes that live")
    if found.unknown and found.unknown[0] not in launches:
        _say(f"passed over: {len(found.unknown)} of other machines or containers (--elsewhere)")
    for server in sorted({launch.server for launch in found.foreign}):
        _say(f"passed over: what was launched on {server}")


def _tell_wait(launches: list[OpenLaunch], settle: float) -> None:
    waits = [doubt(launch, settle) for launch in launches if launch.session_id is None]
    if waits and max(waits) > 1:
        _say(f"{len(waits)} may yet appear: looking for them for up to {max(waits):.0f} seconds")


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError("a number of seconds, 0 or more")

    return value


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201  # its output
