"""Progress reports: `ProgressUpdate` and the callback that receives it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import ContextDecorator
from inspect import iscoroutinefunction
from typing import Any, Protocol, final

from kaleden._errors import InvalidRequest

OK = "ok"
"""The key under which successes are counted."""


@final
class ProgressUpdate(Counter[str]):
    """The progress of an operation: a counter of sessions by state, and totals.

    While waiting for sessions, it counts the sessions in each `SessionStatus`. Otherwise it counts
    the outcomes of requests: ``"ok"``, ``"answered"`` for deletes that are not verified yet, or a
    `FailureKind`.

    Attributes:
        operation: the name of the method; `run` reports ``create`` and then ``wait``.
        done: the number of sessions that have an outcome.
        failed: the number of sessions that have failed.
        started: the number of sessions that were started, including those that have ended or are
            Pending again.
        outage: seconds for which the sessions could not be listed; None if they can be listed.
        expected: the total number of sessions; None if it is unknown, because the ids come from a
            generator.
    """

    def __init__(
        self,
        counts: Mapping[str, int] | None = None,
        *,
        operation: str = "",
        done: int = 0,
        failed: int = 0,
        started: int = 0,
        outage: float | None = None,
        expected: int | None = None,
    ) -> None:
        super().__init__({} if counts is None else counts)
        self.operation = operation
        self.done = done
        self.failed = failed
        self.started = started
        self.outage = outage
        self.expected = expected

    def __str__(self) -> str:
        states = ", ".join(f"{count} {state}" for state, count in self.items())
        if self.outage is None:
            return states

        return f"{states} (not listed for {self.outage:.0f} seconds)"

    def __repr__(self) -> str:
        of = "" if self.expected is None else f" of {self.expected}"
        return f"<ProgressUpdate {self.operation}: {self.done}{of} done; {self}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return ProgressUpdate, (dict(self),), vars(self)


class ProgressCallback(Protocol):
    """A function that receives the progress of an operation.

    It is called after each outcome; while waiting for sessions, it is called after each poll that
    found a change. It must return quickly. An exception that it raises aborts the operation in the
    same way as a cancellation.
    """

    def __call__(self, update: ProgressUpdate, /) -> object:
        """Receive one `ProgressUpdate`, which is not changed later."""
        ...


def check_progress(progress: object) -> None:
    """Check that *progress* is None or a synchronous function.

    Raises:
        InvalidRequest: it is not callable, or it is asynchronous.
    """
    # A context manager that was not entered is callable too, as a decorator.
    if isinstance(progress, ContextDecorator) or not (progress is None or callable(progress)):
        raise InvalidRequest(
            f"progress is a function of a ProgressUpdate, not {type(progress).__name__}; bars are "
            "opened first: `with rich_bars() as progress:`"
        )

    check_synchronous(progress)


def check_synchronous(function: object) -> None:
    """Check that a callback, which is called but not awaited, is not asynchronous.

    Raises:
        InvalidRequest: it is asynchronous.
    """
    if iscoroutinefunction(function):
        raise InvalidRequest(
            f"{function!r} is asynchronous, and would not be awaited: give a plain function"
        )
