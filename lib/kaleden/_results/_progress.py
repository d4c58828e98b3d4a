"""How far an operation is, and who wants to know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import ContextDecorator
from inspect import iscoroutinefunction
from typing import Any, Protocol, final

from kaleden._errors import InvalidRequest

OK = "ok"
"""What is counted for a session that did what it was asked."""


@final
class ProgressUpdate(Counter[str]):
    """How far an operation is: a count of sessions, and what there is to say of all of them.

    What is counted is, while sessions are waited for, how many have each `SessionStatus`; and else
    how many requests came to what: ``"ok"``, ``"answered"`` for deletes that are not verified yet,
    or a `FailureKind`.

    Attributes:
        operation: the method; `run` is a ``create`` and a ``wait``.
        done: how many sessions have an outcome by now.
        failed: how many of these have failed.
        expected: how many there are; None if nobody can tell, since ids come as they are drawn.
    """

    def __init__(
        self,
        counts: Mapping[str, int] | None = None,
        *,
        operation: str = "",
        done: int = 0,
        failed: int = 0,
        expected: int | None = None,
    ) -> None:
        super().__init__({} if counts is None else counts)
        self.operation = operation
        self.done = done
        self.failed = failed
        self.expected = expected

    def __str__(self) -> str:
        return ", ".join(f"{count} {word}" for word, count in self.items())

    def __repr__(self) -> str:
        of = "" if self.expected is None else f" of {self.expected}"
        return f"<ProgressUpdate {self.operation}: {self.done}{of} done; {self}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (dict(self), self.operation, self.done, self.failed, self.expected)


class ProgressCallback(Protocol):
    """A function that is told how far an operation is.

    It is called after each outcome, or where sessions are waited for after each look that changed
    something, and is to be quick. What it raises gives the operation up, as a cancellation does.
    """

    def __call__(self, tally: ProgressUpdate, /) -> object:
        """Take one `ProgressUpdate`, which is not changed later."""
        ...


def check_progress(progress: object) -> None:
    """Make sure that it can be called.

    Raises:
        InvalidRequest: it cannot, or it is asynchronous.
    """
    # A block that was not entered can be called, as a decorator.
    if isinstance(progress, ContextDecorator) or not (progress is None or callable(progress)):
        raise InvalidRequest(
            f"progress is a function of a ProgressUpdate, not {type(progress).__name__}; bars are "
            "opened first: `with rich_bars() as progress:`"
        )

    check_synchronous(progress)


def check_synchronous(function: object) -> None:
    """Make sure that a function which is called here, and not awaited, is not asynchronous.

    Raises:
        InvalidRequest: it is.
    """
    if iscoroutinefunction(function):
        raise InvalidRequest(
            f"{function!r} is asynchronous, and nobody would await it: give a plain function"
        )


def _restore(
    counts: dict[str, int], operation: str, done: int, failed: int, expected: int | None
) -> ProgressUpdate:
    return ProgressUpdate(counts, operation=operation, done=done, failed=failed, expected=expected)
