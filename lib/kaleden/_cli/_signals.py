"""Cancellation of a command by SIGINT, SIGTERM or SIGHUP."""

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
"""The exit status that shells report after Ctrl-C."""


@final
@frozen
class Interrupted:
    """The result of work that a signal cancelled.

    Attributes:
        status: the exit status that shells report after the signal.
    """

    status: int


async def run_until_interrupted(
    work: Callable[[], Awaitable[T]], on_second_signal: Callable[[], None] | None = None
) -> T | Interrupted:
    """Run *work*, and cancel only it at the first signal.

    By default, Ctrl-C raises KeyboardInterrupt in the task that is running. On trio, that can be a
    task of the embedded platform, which then cannot serve the requests of the clean-up.

    Args:
        work: an async function.
        on_second_signal: called at a second signal, before the process exits at once; it reports
            the sessions that are left. None restores Python's handlers after the first signal.

    Returns:
        The result of *work*, or the signal that cancelled it.

    Cancellation:
        The work is cancelled.
    """
    if sys.platform == "win32":
        return await work()

    caught: list[Interrupted] = []
    results: list[T] = []
    async with open_task_group() as group:
        with anyio.CancelScope() as scope:
            await group.start(_listen, scope, caught, on_second_signal)
            results.append(await work())
        group.cancel_scope.cancel()

    return results[0] if results else caught[0]


async def _listen(
    scope: anyio.CancelScope,
    caught: list[Interrupted],
    on_second_signal: Callable[[], None] | None,
    *,
    task_status: TaskStatus[None],
) -> None:
    with anyio.open_signal_receiver(*_list_signals()) as signals:
        task_status.started()
        async for number in signals:
            if caught and on_second_signal is not None:
                on_second_signal()
                os._exit(128 + number)

            caught.append(Interrupted(128 + number))
            scope.cancel()
            if on_second_signal is None:
                return


def _list_signals() -> list[signal.Signals]:
    """List the signals to handle; SIGHUP stays ignored under nohup."""
    signals = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signals.append(signal.SIGHUP)
    return signals
