"""The demo from its first line to its last."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import final

from attrs import frozen
from rich.console import Console

from kaleden import (
    AsyncSession,
    Failure,
    FailureKind,
    FinishedSession,
    KaledenError,
    Outcome,
    Outcomes,
    Success,
)
from kaleden._cli._demo import _replica
from kaleden._cli._demo._display import open_board, report
from kaleden._cli._demo._replica import Share
from kaleden._cli._signals import Interrupted, until_interrupted
from kaleden.local import LocalPlatform

CLEANUP = 60.0
"""Seconds that ending the sessions may take, whatever ended the demo."""


@final
@frozen
class DemoOptions:
    """What to show, and where.

    Attributes:
        replicas: how many sessions to launch.
        image: the image they run.
        session: a client of the server, not entered yet; None for a platform of its own.
    """

    replicas: int = 12
    image: str = "skaha/astroml:latest"
    session: AsyncSession | None = None

    @property
    def fails(self) -> int | None:
        """The replica that fails on purpose: one in the middle, and none of only one."""
        return (self.replicas + 1) // 2 if self.replicas > 1 else None


@final
@frozen
class DemoResult:
    """What it came to.

    Attributes:
        status: the exit status: 0 if all went as it should and nothing is left, 1 if not, 130 after
            Ctrl-C.
        outcomes: what each replica found; None if it was interrupted.
        left: the sessions that are left; None if nobody can tell.
    """

    status: int
    outcomes: Outcomes[Share] | None
    left: list[str] | None


async def run(options: DemoOptions, console: Console) -> DemoResult:
    """Run the demo until its end, or until Ctrl-C, which cancels it.

    Cancellation:
        The sessions are destroyed all the same, within `CLEANUP` seconds.
    """
    name = f"demo-{secrets.token_hex(3)}"
    async with _server(options, console) as session:
        outcomes = await until_interrupted(
            lambda: _launch_and_watch(session, name, options, console)
        )
        left = await _look_for(name, session, console)

    if isinstance(outcomes, Interrupted):
        console.print("interrupted")
        return DemoResult(1 if left != [] else outcomes.status, None, left)

    report(outcomes, console)
    good = _is_as_meant(outcomes, options) and left == []
    return DemoResult(0 if good else 1, outcomes, left)


async def _look_for(name: str, session: AsyncSession, console: Console) -> list[str] | None:
    """List what is left of the demo; None if nobody can tell."""
    try:
        left = [info.id for info in await session.fetch() if info.name.startswith(name)]
    except KaledenError as error:
        console.print(f"What is left on the platform cannot be told: {error}", markup=False)
        return None

    console.print(f"Left on the platform: {', '.join(left) or 'nothing'}")
    return left


@asynccontextmanager
async def _server(options: DemoOptions, console: Console) -> AsyncGenerator[AsyncSession]:
    if options.session is not None:
        async with options.session as session:
            yield session
        return

    async with (
        LocalPlatform() as platform,
        AsyncSession(platform.url, platform.token) as session,
    ):
        console.print(f"An embedded platform listens at [bold]{platform.url}[/]")
        yield session


async def _launch_and_watch(
    session: AsyncSession, name: str, options: DemoOptions, console: Console
) -> Outcomes[Share]:
    console.print(
        f"Launching {options.replicas} sessions that count the primes below {_replica.LIMIT}:"
    )
    with open_board(console) as board:
        finished = await session.run(
            name,
            options.image,
            cmd=_replica.COMMAND,
            args=_replica.ARGUMENTS,
            env=_replica.environment(options.fails),
            replicas=options.replicas,
            grace=CLEANUP,
            progress=board.show,
        )
    return Outcomes("demo", [_read(outcome) for outcome in finished])


def _read(outcome: Outcome[FinishedSession]) -> Outcome[Share]:
    """Find the result of one replica in its log."""
    if isinstance(outcome, Failure):
        return outcome

    share = _replica.read(outcome.value.log)
    if share is None:
        message = "it ended well, and its log has no result"
        return Failure(outcome.key, FailureKind.SESSION_FAILED, message)

    return Success(outcome.key, share)


def _is_as_meant(outcomes: Outcomes[Share], options: DemoOptions) -> bool:
    """Tell whether just the replica that should fail did, and the others counted right."""
    keys = [outcome.key for outcome in outcomes]
    meant = [] if options.fails is None else [keys[options.fails - 1]]
    total = sum(share.primes for share in outcomes.values)
    right = total < _replica.PRIMES if meant else total == _replica.PRIMES
    return right and list(outcomes.failures) == meant
