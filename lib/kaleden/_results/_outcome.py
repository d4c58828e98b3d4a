"""What became of one session of an operation.

A `Failure` is data, not a stored exception: it holds no traceback and no reply, so a hundred
thousand of them are cheap, they pickle, and they survive a round trip through JSON.
"""

from __future__ import annotations

from typing import Any, ClassVar, Generic, Literal, TypeAlias, TypeVar, final

from attrs import field, frozen

from kaleden._errors import FailureKind, InvalidRequest, RequestError, get_error_class
from kaleden._wire import Event, SessionInfo

T = TypeVar("T")


@final
@frozen
class Success(Generic[T]):
    """One request that did what it was asked.

    Attributes:
        key: the session id; for `create`, the session name.
        value: what the operation returns for one session.
        attempts: how many times it was sent.
        elapsed: seconds from taking it up to its end.
    """

    key: str
    value: T
    attempts: int = 1
    elapsed: float = field(default=0.0, eq=False)
    ok: ClassVar[Literal[True]] = True
    """Always true. ``if outcome.ok is True`` tells every type checker that there is a value."""


@final
@frozen
class Failure:
    """One request that did not do what it was asked.

    Attributes:
        key: the session id; for `create`, the session name.
        kind: what became of it, by what can be done next.
        message: what happened, in the server's own words where it said something.
        status: the HTTP status, if there was a reply.
        retry_after: seconds the server asked to wait, if it did.
        sent: whether any of it may have reached the server.
        attempts: how many times it was sent.
        elapsed: seconds from taking it up to its end.
        final: whether it would be the same a second time, whatever its kind: a server's certificate
            that is not trusted, say.
    """

    key: str
    kind: FailureKind
    message: str
    status: int | None = None
    retry_after: float | None = None
    sent: bool = False
    attempts: int = 1
    elapsed: float = field(default=0.0, eq=False)
    final: bool = False
    ok: ClassVar[Literal[False]] = False
    """Always false. ``if outcome.ok is False`` tells every type checker what failed."""

    def __str__(self) -> str:
        status = "" if self.status is None else f", HTTP {self.status}"
        asked, attempts = "", ""
        if self.retry_after:
            asked = f", asked to wait {max(1.0, self.retry_after):.0f} s"
        if self.attempts > 1:
            attempts = f", after {self.attempts} attempts"
        return f"{self.key}: {self.message} ({self.kind}{status}{asked}{attempts})"

    def to_exception(self) -> RequestError | InvalidRequest:
        """Make a new exception of our tree that says the same.

        Returns:
            `InvalidRequest` for what was refused before it was sent, else the `RequestError` of
            this kind.
        """
        if self.kind is FailureKind.INVALID:
            return InvalidRequest(str(self))

        return get_error_class(self.kind)(self)


@final
@frozen
class FinishedSession:
    """A session that ran to its end, and what it left.

    Attributes:
        info: the session as it was last listed.
        log: its whole output.
        events: what the platform reported of it.
        elapsed: seconds from the start of the call until it was seen to have ended.
    """

    info: SessionInfo
    log: str = field(repr=False)
    events: tuple[Event, ...] = field(repr=False)
    elapsed: float = field(eq=False)


Outcome: TypeAlias = Success[T] | Failure


def contradict_success(
    answer: Success[Any], kind: FailureKind, message: str, status: int | None = None
) -> Failure:
    """Make the failure of what was answered with success, and was none."""
    return Failure(
        answer.key,
        kind,
        message,
        status,
        sent=True,
        attempts=answer.attempts,
        elapsed=answer.elapsed,
    )
