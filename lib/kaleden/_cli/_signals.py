"""Ctrl-C for programs: it ends the work, and lets that clean up."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar, final

import anyio
from anyio.abc import TaskStatus
from attrs import frozen

from kaleden._engine._tasks import open_task_group

T = TypeVar("T")

INTERRUPTED: Final = 128 + signal.SIGINT
"""Exit status after Ctrl-C, as shells have it."""


@final
@frozen
class Interrupted:
    """What work came to that a signal ended.

    Attributes:
        signal: its number.
    """

    signal: int

    @property
    def status(self) -> int:
        """The exit status, as shells have it."""
        return 128 + self.signal


async def until_interrupted(
    work: Callable[[], Awaitable[T]], hurry: Callable[[], None] | None = None
) -> T | Interrupted:
    """Do *work*, which the first signal cancels, and nothing else with it.

    Left to itself Ctrl-C is an exception in whichever task runs, on trio also in those of an
    embedded platform, which then could not answer the clean-up any more.

    Args:
        work: what to do.
        hurry: says what is left; called at a second signal, which ends the process at once. None
            leaves that to Python.

    Returns:
        What the work returned; what interrupted it if it was cancelled.

    Cancellation:
        The work is cancelled.
    """
    if sys.platform == "win32":
        return await work()

    caught: list[Interrupted] = []
    results: list[T] = []
    async with open_task_group() as group:
        with anyio.CancelScope() as scope:
            await group.start(_listen, scope, caught, hurry)
            results.append(await work())
        group.cancel_scope.cancel()

    return results[0] if results else caught[0]


async def _listen(
    scope: anyio.CancelScope,
    caught: list[Interrupted],
    hurry: Callable[[], None] | None,
    *,
    task_status: TaskStatus[None],
) -> None:
    with anyio.open_signal_receiver(*_signals()) as signals:
        task_status.started()
        async for number in signals:
            if caught and hurry is not None:
                hurry()
                os._exit(128 + number)

            caught.append(Interrupted(number))
            scope.cancel()
            if hurry is None:
                return


def _signals() -> list[signal.Signals]:
    """List what is heeded: who runs under nohup wants to hear of no hang-up."""
    wanted = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        wanted.append(signal.SIGHUP)
    return wanted
