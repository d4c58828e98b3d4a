"""Task groups and checkpoints.

`open_task_group` does not wrap a single error in a group, `run_shielded` is not stopped by
cancellation, and `map_with_checkpoints` divides long computations.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint


@asynccontextmanager
async def open_task_group() -> AsyncGenerator[TaskGroup]:
    """Open a task group that raises a single error unchanged.

    An anyio task group raises an exception group even for one error. The tasks of this library do
    not raise, so a single error is the caller's: from the body of its ``async with``, or from the
    iterator that it passed. The ``except`` clause that the caller wrote for it must match.

    Raises:
        BaseExceptionGroup: several errors, none of which is a KeyboardInterrupt or SystemExit.
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
        # A concurrent cancellation must not replace the error of the body.
        if error is None:
            raise
    except BaseExceptionGroup as caught:
        error = _unwrap_lone_error(caught if error is None else _add_error(caught, error))

    # Raise it outside of the handler, so that the group does not become the context of the error.
    if error is not None:
        raise error


async def run_shielded(work: Callable[[], Awaitable[None]], grace: float) -> bool:
    """Run *work* shielded from cancellation, for at most *grace* seconds.

    The work runs in a child task, because asyncio's native cancellation passes through a shield in
    the task that is cancelled.

    Returns:
        Whether the work completed.

    Cancellation:
        Takes effect once the work has completed or the grace period is over, here or at the next
        checkpoint.
    """
    completed = False

    async def body() -> None:
        nonlocal completed
        with anyio.move_on_after(grace, shield=True):
            await work()
            completed = True

    async with open_task_group() as group:
        group.start_soon(body)

    return completed


def _add_error(
    group: BaseExceptionGroup[BaseException], error: BaseException
) -> BaseExceptionGroup[BaseException]:
    """Return a group of the error of the body and those of the tasks."""
    return BaseExceptionGroup(group.message, [error, *group.exceptions])


def _unwrap_lone_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the only error of *group*, else *group*; nested groups are the caller's."""
    cancelled = anyio.get_cancelled_exc_class()
    errors = [error for error in group.exceptions if not isinstance(error, cancelled)]
    for error in errors:
        # Ctrl-C must not be hidden inside a group.
        if isinstance(error, KeyboardInterrupt | SystemExit):
            return error

    return errors[0] if len(errors) == 1 else group


T = TypeVar("T")
R = TypeVar("R")

_CHECKPOINT_INTERVAL: Final = 500
"""Items between two checkpoints; at some microseconds each, they take a millisecond or two."""


async def map_with_checkpoints(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Apply *function* to each of *items*, with a checkpoint after every 500 of them.

    Raises:
        Exception: only what *function* or the iterable raised.
    """
    results: list[R] = []
    for item in items:
        results.append(function(item))
        if len(results) % _CHECKPOINT_INTERVAL == 0:
            await checkpoint()
    return results
