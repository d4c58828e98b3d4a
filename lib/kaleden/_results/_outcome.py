"""The outcome of an operation for one session: `Success` or `Failure`.

A `Failure` is data, not a stored exception. It holds neither a traceback nor a response, so a
hundred thousand of them need little memory. It can be pickled, and converted to JSON and back.
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
    """The outcome of a successful request.

    Attributes:
        key: the session id; for `create`, the session name.
        value: the result of the operation for this session.
        attempts: the number of times that the request was sent.
        elapsed: seconds from the start of the request, retries included, to its outcome.
        omitted: bytes at the start of a log that are not in *value*, because it is too long.
    """

    key: str
    value: T
    attempts: int = 1
    elapsed: float = field(default=0.0, eq=False)
    omitted: int = 0
    ok: ClassVar[Literal[True]] = True
    """Always true. After ``if outcome.ok is True`` type checkers know that there is a value."""


@final
@frozen
class Failure:
    """The outcome of a failed request.

    Attributes:
        key: the session id; for `create`, the session name.
        kind: the kind of failure, which determines the caller's next step.
        message: a description of the failure; the server's message where there is one.
        status: the HTTP status; None if there was no response.
        retry_after: seconds that the server asked to wait; None if it did not ask.
        sent: whether any part of the request may have reached the server.
        attempts: the number of times that the request was sent.
        elapsed: seconds from the start of the request, retries included, to its outcome.
        final: whether a retry would fail in the same way regardless of *kind*, for example because
            the server's certificate is not trusted.
        by_name: whether this is the failure of a launch without a session that a later operation
            carries on, so that *key* is a name.
        session: the id of the session, for a failure of `run`, whose *key* is a name.
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
    by_name: bool = False
    session: str | None = None
    ok: ClassVar[Literal[False]] = False
    """Always false. After ``if outcome.ok is False`` type checkers know that this is a failure."""

    def __str__(self) -> str:
        status = "" if self.status is None else f", HTTP {self.status}"
        wait, attempts = "", ""
        if self.retry_after:
            wait = f", asked to wait {max(1.0, self.retry_after):.0f} s"
        if self.attempts > 1:
            attempts = f", after {self.attempts} attempts"
        return f"{self.key}: {self.message} ({self.kind}{status}{wait}{attempts})"

    def to_exception(self) -> RequestError | InvalidRequest:
        """Return an exception for this failure.

        Returns:
            A new `InvalidRequest` if the request was refused before it was sent, otherwise a new
            `RequestError` of the class for this kind.
        """
        if self.kind is FailureKind.INVALID:
            return InvalidRequest(str(self))

        return get_error_class(self.kind)(self)


@final
@frozen
class FinishedSession:
    """A session that has ended, with its output and events.

    Attributes:
        info: the session as in the last list.
        log: its output; if that is too long, the end of it.
        events: its Kubernetes events.
        elapsed: seconds from the start of the call until a list showed that the session had ended.
    """

    info: SessionInfo
    log: str = field(repr=False)
    events: tuple[Event, ...] = field(repr=False)
    elapsed: float = field(eq=False)


Outcome: TypeAlias = Success[T] | Failure


def contradict_success(
    success: Success[Any], kind: FailureKind, message: str, status: int | None = None
) -> Failure:
    """Return a `Failure` for a success response that later evidence contradicts."""
    return Failure(
        success.key,
        kind,
        message,
        status,
        sent=True,
        attempts=success.attempts,
        elapsed=success.elapsed,
    )
