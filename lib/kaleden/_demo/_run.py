"""The demo from its first line to its last."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import final

import anyio
from attrs import frozen
from rich.console import Console

from kaleden import (
    AsyncSession,
    Event,
    Failure,
    FailureKind,
    Outcome,
    Outcomes,
    SessionInfo,
    Status,
    Success,
)
from kaleden._demo import _share
from kaleden._demo._board import open_board, report
from kaleden._demo._share import Share
from kaleden.local import LocalPlatform

POLL_INTERVAL = 0.3
"""Seconds between two lists on the embedded platform."""

REMOTE_POLL_INTERVAL = 5.0
"""Seconds between two lists on a real server, where one costs a walk over all the user's pods."""

CLEANUP = 60.0
"""Seconds that ending the sessions may take, whatever ended the demo."""


@final
@frozen
class DemoOptions:
    """What to show, and where.

    Attributes:
        replicas: how many sessions to launch.
        image: the image they run.
        url: the server; None for a platform of its own.
        token: the token for *url*.
    """

    replicas: int = 12
    image: str = "skaha/astroml:latest"
    url: str | None = None
    token: str | None = None

    @property
    def fails(self) -> int | None:
        """The replica that fails on purpose: one in the middle, and none of only one."""
        return (self.replicas + 1) // 2 if self.replicas > 1 else None


async def run(options: DemoOptions, console: Console) -> int:
    """Run the demo.

    Returns:
        The exit status: 0 if all went as it should and nothing is left, else 1.

    Cancellation:
        The sessions are destroyed all the same, within `CLEANUP` seconds.
    """
    async with _server(options, console) as session:
        name = f"demo-{secrets.token_hex(3)}"
        left = None
        try:
            outcomes = await _launch_and_watch(session, name, options, console)
        finally:
            with anyio.move_on_after(CLEANUP, shield=True):
                left = await _clean_up(session, name, console)

    report(outcomes, console)
    return 0 if _is_as_meant(outcomes, options) and left == [] else 1


@asynccontextmanager
async def _server(options: DemoOptions, console: Console) -> AsyncGenerator[AsyncSession]:
    if options.url is not None:
        async with AsyncSession(options.url, options.token) as session:
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
        f"Launching {options.replicas} sessions that count the primes below {_share.LIMIT}:"
    )
    created = await session.create(
        name,
        options.image,
        cmd=_share.COMMAND,
        args=_share.ARGUMENTS,
        env=_share.environment(options.fails),
        replicas=options.replicas,
    )
    console.print(created)
    ended = await _watch(session, created, options, console)
    return Outcomes("demo", await _read_results(session, created, ended))


async def _watch(
    session: AsyncSession, created: Outcomes[str], options: DemoOptions, console: Console
) -> dict[str, SessionInfo]:
    """Poll with one list for all sessions until each has ended."""
    interval = POLL_INTERVAL if options.url is None else REMOTE_POLL_INTERVAL
    with open_board(console) as board:
        while True:
            listed = {info.id: info for info in await session.fetch("headless")}
            seen = {name: listed.get(key) for name, key in created.successes.items()}
            board.show(seen)
            if all(info is None or info.status.is_terminal for info in seen.values()):
                return {info.id: info for info in seen.values() if info is not None}

            await anyio.sleep(interval)


async def _read_results(
    session: AsyncSession, created: Outcomes[str], ended: dict[str, SessionInfo]
) -> list[Outcome[Share]]:
    """Read what each replica wrote and why some failed, before the platform forgets it."""
    logs = await session.logs(ended.values())
    failed = [info for info in ended.values() if not info.status.matches(Status.COMPLETED)]
    events = await session.events(failed)
    return [
        outcome
        if isinstance(outcome, Failure)
        else _judge(outcome.key, ended.get(outcome.value), logs, events)
        for outcome in created
    ]


def _judge(
    name: str,
    info: SessionInfo | None,
    logs: Outcomes[str],
    events: Outcomes[tuple[Event, ...]],
) -> Outcome[Share]:
    """Judge one replica by its status and its log."""
    if info is None:
        return Failure(
            name, FailureKind.NOT_FOUND, "no longer listed, so nobody knows how it ended"
        )

    log = logs.successes.get(info.id, "")
    share = _share.read(log)
    if info.status.matches(Status.COMPLETED) and share is not None:
        return Success(name, share)

    warnings = [
        event.message for event in events.successes.get(info.id, ()) if event.type != "Normal"
    ]
    reason = "; ".join([str(info.status), *warnings[-1:]])
    return Failure(
        name, FailureKind.SESSION_FAILED, f"{reason}. Its log ends:\n{log[-500:].strip()}"
    )


async def _clean_up(session: AsyncSession, name: str, console: Console) -> list[str]:
    """End everything that bears the demo's name, also what an interrupted launch left."""
    destroyed = await session.destroy_with(name, status=None)
    console.print(destroyed)
    left = [info.id for info in await session.fetch() if info.name.startswith(name)]
    console.print(f"Left on the platform: {', '.join(left) or 'nothing'}")
    return left


def _is_as_meant(outcomes: Outcomes[Share], options: DemoOptions) -> bool:
    """Tell whether just the replica that should fail did, and the others counted right."""
    keys = [outcome.key for outcome in outcomes]
    meant = [] if options.fails is None else [keys[options.fails - 1]]
    total = sum(share.primes for share in outcomes.values)
    right = total < _share.PRIMES if meant else total == _share.PRIMES
    return right and list(outcomes.failures) == meant
