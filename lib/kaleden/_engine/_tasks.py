"""Task groups: one whose lone error comes out as itself, and one that cancellation cannot stop."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint


@asynccontextmanager
async def open_task_group() -> AsyncGenerator[TaskGroup]:
    """Open a task group that does not wrap the only error in it.

    An anyio task group raises an exception group, also for one error. Where the tasks are ours and
    never raise, the one error is the caller's own: from the body of its ``async with``, or from the
    iterator it gave us; and it should meet the ``except`` that the caller wrote for it.

    Raises:
        BaseExceptionGroup: more than one error, none of which is a KeyboardInterrupt.
    """
    error: BaseException | None = None
    try:
        async with anyio.create_task_group() as group:
            try:
                yield group
            except anyio.get_cancelled_exc_class():
                raise
            except BaseException as raised:  # noqa: BLE001  # raised again below, as the same object
                error = raised
                group.cancel_scope.cancel()
    except anyio.get_cancelled_exc_class():
        # What the body raised is not lost to a cancellation that came beside it.
        if error is None:
            raise
    except BaseExceptionGroup as caught:
        error = _lone_error(caught if error is None else _with(error, caught))

    # Raised out here, so that the group does not become the error's context.
    if error is not None:
        raise error


async def run_shielded(work: Callable[[], Awaitable[None]], grace: float) -> bool:
    """Run *work*, whatever is cancelled meanwhile, for at most *grace* seconds.

    It runs in a child task: a shield in the host's own would not hold off asyncio's native
    cancellation.

    Returns:
        Whether the work came to its end.

    Cancellation:
        Waits until the work has ended or its time is over; it is raised here or at the next
        checkpoint.
    """
    finished = False

    async def body() -> None:
        nonlocal finished
        with anyio.move_on_after(grace, shield=True):
            await work()
            finished = True

    async with open_task_group() as group:
        group.start_soon(body)

    return finished


def _with(
    error: BaseException, group: BaseExceptionGroup[BaseException]
) -> BaseExceptionGroup[BaseException]:
    """Put the body's error beside those of the tasks."""
    return BaseExceptionGroup(group.message, [error, *group.exceptions])


def _lone_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Find the one error of *group*, one level deep: deeper groups are the caller's own."""
    cancelled = anyio.get_cancelled_exc_class()
    errors = [error for error in group.exceptions if not isinstance(error, cancelled)]
    for error in errors:
        # A Ctrl-C must never be found only inside a group.
        if isinstance(error, KeyboardInterrupt | SystemExit):
            return error

    return errors[0] if len(errors) == 1 else group


T = TypeVar("T")
R = TypeVar("R")

CHUNK: Final = 500
"""Steps of some microseconds each, which together take a millisecond or two."""


async def map_with_checkpoints(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Apply *function* to each of *items*, and be a checkpoint after every few hundred of them.

    Raises:
        Exception: what *function* or the iterable raised.
    """
    results: list[R] = []
    for item in items:
        results.append(function(item))
        if len(results) % CHUNK == 0:
            await checkpoint()
    return results
