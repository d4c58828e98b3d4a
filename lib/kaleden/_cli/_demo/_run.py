"""The work of the demo."""

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
from kaleden._cli._demo._display import open_status_display, print_report
from kaleden._cli._demo._replica import Share
from kaleden._cli._signals import Interrupted, run_until_interrupted
from kaleden.local import LocalPlatform

CLEANUP_SECONDS = 60.0
"""Time limit of the clean-up, in seconds."""


@final
@frozen
class DemoOptions:
    """The options of the demo.

    Attributes:
        replicas: number of sessions to launch.
        image: the image to run.
        session: a client that is not entered yet; None to start an embedded platform.
    """

    replicas: int = 12
    image: str = "skaha/astroml:latest"
    session: AsyncSession | None = None

    @property
    def failing_replica(self) -> int | None:
        """The number of the replica that fails on purpose, from 1; None with only one replica."""
        return (self.replicas + 1) // 2 if self.replicas > 1 else None


@final
@frozen
class DemoResult:
    """The result of the demo.

    Attributes:
        status: the exit status: 0 if the outcomes are as expected and no session is left, 1 if not,
            130 after Ctrl-C.
        outcomes: the result of each replica; None after an interruption.
        left: the ids of sessions that are left; None if they cannot be listed.
    """

    status: int
    outcomes: Outcomes[Share] | None
    left: list[str] | None


async def run(options: DemoOptions, console: Console) -> DemoResult:
    """Run the demo until its end or Ctrl-C.

    Cancellation:
        The sessions are destroyed within `CLEANUP_SECONDS`.
    """
    name = f"demo-{secrets.token_hex(3)}"
    async with _open_session(options, console) as session:
        outcomes = await run_until_interrupted(
            lambda: _launch_and_watch(session, name, options, console)
        )
        left = await _find_leftovers(name, session, console)

    if isinstance(outcomes, Interrupted):
        console.print("interrupted")
        return DemoResult(1 if left != [] else outcomes.status, None, left)

    print_report(outcomes, console)
    is_good = _is_expected(outcomes, options) and left == []
    return DemoResult(0 if is_good else 1, outcomes, left)


async def _find_leftovers(name: str, session: AsyncSession, console: Console) -> list[str] | None:
    """Return the ids of the demo's sessions that are left; None if they cannot be listed."""
    try:
        left = [info.id for info in await session.fetch() if info.name.startswith(name)]
    except KaledenError as error:
        console.print(f"Sessions may be left, the list failed: {error}", markup=False)
        return None

    console.print(f"Left on the platform: {', '.join(left) or 'nothing'}")
    return left


@asynccontextmanager
async def _open_session(options: DemoOptions, console: Console) -> AsyncGenerator[AsyncSession]:
    if options.session is not None:
        async with options.session as session:
            yield session
        return

    async with LocalPlatform() as platform, AsyncSession(platform.url, platform.token) as session:
        console.print(f"An embedded platform listens at [bold]{platform.url}[/]")
        yield session


async def _launch_and_watch(
    session: AsyncSession, name: str, options: DemoOptions, console: Console
) -> Outcomes[Share]:
    console.print(
        f"Launching {options.replicas} sessions that count the primes below {_replica.LIMIT}:"
    )
    with open_status_display(console) as show:
        finished = await session.run(
            name,
            options.image,
            cmd=_replica.COMMAND,
            args=_replica.ARGUMENTS,
            env=_replica.make_environment(options.failing_replica),
            replicas=options.replicas,
            grace=CLEANUP_SECONDS,
            progress=show,
        )
    return Outcomes("demo", [_parse_outcome(outcome) for outcome in finished])


def _parse_outcome(outcome: Outcome[FinishedSession]) -> Outcome[Share]:
    """Find the result of one replica in its log."""
    if isinstance(outcome, Failure):
        return outcome

    share = _replica.parse_share(outcome.value.log)
    if share is None:
        message = "it completed, but its log has no result"
        return Failure(outcome.key, FailureKind.SESSION_FAILED, message)

    return Success(outcome.key, share)


def _is_expected(outcomes: Outcomes[Share], options: DemoOptions) -> bool:
    """Whether only the failing replica has failed, and the sum of the others is right."""
    keys = [outcome.key for outcome in outcomes]
    expected = [] if options.failing_replica is None else [keys[options.failing_replica - 1]]
    total = sum(share.primes for share in outcomes.values)
    is_right = total < _replica.PRIMES if expected else total == _replica.PRIMES
    return is_right and list(outcomes.failures) == expected
