"""The exceptions of kaleden, and `FailureKind`.

::

    KaledenError
    ├── ConfigurationError (ValueError)        invalid arguments for a client
    ├── InvalidRequest (ValueError)            invalid arguments; nothing was sent
    ├── LedgerError (OSError)                  the ledger cannot be read or written
    ├── SessionNotOpen (RuntimeError)          used outside ``async with``
    ├── SessionForked (RuntimeError)           used in a forked child process
    ├── WrongEventLoop (RuntimeError)          used in another event loop than it was entered in
    ├── WrongThread (RuntimeError)             used in its own event-loop thread
    ├── CallTimedOut (TimeoutError)            the ``timeout`` of a `Session`'s method expired
    ├── ScopeClosed (RuntimeError)             used after its block was left
    ├── ScopeError                             sessions that may have outlived their scope
    ├── RequestError                           one request failed; details in ``.failure``
    │   ├── ConnectFailed                      no connection; nothing was sent
    │   ├── ConnectionLost                     sent, but the response is incomplete
    │   ├── TimedOut                           no complete response within the attempt's time
    │   ├── ProtocolError                      the response is not from the Skaha API
    │   ├── BadRequest                         the server refused the request
    │   │   └── QuotaExceeded                  ... because the user's limit is reached
    │   ├── NotAuthenticated                   no valid credentials; log in first
    │   ├── NotAuthorized                      logged in, but not permitted
    │   ├── NotFound                           the session does not exist now
    │   ├── Unavailable                        the server asks to retry later
    │   ├── ServerError                        the server failed
    │   ├── NotDestroyed                       still listed after its delete, or not verified
    │   ├── UnknownEffect                      the request may or may not have taken effect
    │   ├── SessionFailed                      the session itself ended as Failed
    │   ├── WrongState                         the session ended in another state than expected
    │   ├── Vanished                           the session is no longer listed
    │   ├── PendingTimeout                     the session did not start in time
    │   └── NotOpened                          the session's page could not be opened
    └── BatchError (ExceptionGroup)            some requests failed; see ``.outcomes``

A failed request has a `FailureKind`. `RequestError` and its subclasses are the corresponding
exceptions.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kaleden._results._batch import FinishedSession, Outcomes
    from kaleden._results._outcome import Failure


class FailureKind(StrEnum):
    """The kind of a failure, which determines the caller's next step."""

    INVALID = "invalid"
    """The arguments are invalid and nothing was sent: correct them."""
    CONNECT_FAILED = "connect_failed"
    """No connection to the server: nothing was sent, so the request had no effect."""
    CONNECTION_LOST = "connection_lost"
    """The connection ended before the complete response was read."""
    TIMED_OUT = "timed_out"
    """No complete response was read within the time of the attempt."""
    PROTOCOL = "protocol"
    """The response cannot be parsed: is this a Skaha server?"""
    BAD_REQUEST = "bad_request"
    """The server refused the request (HTTP 400 and other 4xx)."""
    QUOTA = "quota"
    """The limit on the user's sessions is reached."""
    NOT_AUTHENTICATED = "not_authenticated"
    """The credentials are missing, expired or unknown."""
    NOT_AUTHORIZED = "not_authorized"
    """The user is authenticated, but not permitted to make this request."""
    NOT_FOUND = "not_found"
    """The session does not exist, has ended and was removed, or belongs to another user."""
    UNAVAILABLE = "unavailable"
    """The server asks to retry later (HTTP 429 and 503)."""
    SERVER_ERROR = "server_error"
    """The server failed (other 5xx). The request may have taken effect nevertheless."""
    NOT_DESTROYED = "not_destroyed"
    """The delete succeeded, but a later list still has the session, or no list was available."""
    UNKNOWN_EFFECT = "unknown_effect"
    """The request was sent and its response was lost, so it may have taken effect."""
    SESSION_FAILED = "session_failed"
    """The session ended unsuccessfully: see its log and events."""
    WRONG_STATE = "wrong_state"
    """The session has ended, in a state that is not among those waited for."""
    VANISHED = "vanished"
    """The session is no longer listed: deleted, or removed an hour after its end."""
    PENDING_TIMEOUT = "pending_timeout"
    """The session did not start in time."""
    NOT_OPENED = "not_opened"
    """The session is not Running, its page does not exist, or no browser is available."""
    INTERNAL = "internal"
    """A fault in kaleden or in the transport that it uses: please report it."""

    @property
    def may_have_taken_effect(self) -> bool:
        """Whether the request may have taken effect although it failed."""
        return self in _IN_DOUBT


_IN_DOUBT = frozenset(
    {
        FailureKind.CONNECTION_LOST,
        FailureKind.INTERNAL,
        FailureKind.PROTOCOL,
        FailureKind.SERVER_ERROR,
        FailureKind.TIMED_OUT,
    }
)


class KaledenError(Exception):
    """The base class of all exceptions that kaleden raises deliberately."""


class ConfigurationError(KaledenError, ValueError):
    """The arguments for a client are invalid; the message explains how to correct them."""


class InvalidRequest(KaledenError, ValueError):
    """Invalid arguments, refused before a request was sent; the message has the correction."""


class SessionNotOpen(KaledenError, RuntimeError):
    """The client was used before it was entered or after it was left."""


class SessionForked(KaledenError, RuntimeError):
    """The client was used in a child process, created by ``os.fork``, of its own process."""


class WrongEventLoop(KaledenError, RuntimeError):
    """The client was used in another event loop than the one it was entered in."""


class WrongThread(KaledenError, RuntimeError):
    """A `Session` was used in its own event-loop thread, which would deadlock."""


class CallTimedOut(KaledenError, TimeoutError):
    """The ``timeout`` of a method of `Session` expired; the call was cancelled and cleaned up.

    It concerns a whole call, with all its requests and waiting. `TimedOut` instead concerns one
    attempt of one request, and `PendingTimeout` a session that did not start in time.
    """


class ScopeClosed(KaledenError, RuntimeError):
    """The scope was used outside its block."""


class ScopeError(KaledenError):
    """A scope could not end all of its sessions within its grace period.

    Args:
        survivors: ids of the sessions that still exist, or whose end could not be verified.
        launches: names of sessions that may still appear, because the responses to their create
            requests were lost.
        failures: the failure to end each survivor, by id: the HTTP status and the message of the
            server, or the reason why its end is not proved. An id is missing if nothing was sent.

    Attributes:
        outcomes: the results of `run` so far, if it raised this error; otherwise None.
    """

    def __init__(
        self,
        survivors: tuple[str, ...],
        launches: tuple[str, ...] = (),
        failures: Mapping[str, Failure] | None = None,
    ) -> None:
        super().__init__(survivors, launches, failures)
        self.survivors = survivors
        self.launches = launches
        self.failures: dict[str, Failure] = dict(failures or {})
        self.outcomes: Outcomes[FinishedSession] | None = None

    def __str__(self) -> str:
        parts: list[str] = []
        if self.survivors:
            parts.append(f"these sessions may be left: {', '.join(self._describe_survivors())}")
        if self.launches:
            parts.append(f"sessions with these names may appear later: {', '.join(self.launches)}")
        if self.outcomes is not None:
            parts.append(f"the results so far: {self.outcomes!r}")
        return "; ".join(parts)

    def _describe_survivors(self) -> list[str]:
        """Return the ids, each followed by the reason if it differs from that of the next one."""
        reasons = [_format_reason(self.failures.get(key)) for key in self.survivors]
        pairs = zip(self.survivors, reasons, [*reasons[1:], None], strict=True)
        return [key if reason == after else key + reason for key, reason, after in pairs]


def _format_reason(failure: Failure | None) -> str:
    if failure is None:
        return ""

    status = "" if failure.status is None else f"HTTP {failure.status}: "
    return f" ({status}{failure.message})"


class RequestError(KaledenError):
    """One request failed.

    Args:
        failure: the failure, as data.
    """

    kind: ClassVar[FailureKind] = FailureKind.INTERNAL

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure

    def __str__(self) -> str:
        return str(self.failure)


class ConnectFailed(RequestError):
    """Connecting to the server failed; nothing was sent."""

    kind = FailureKind.CONNECT_FAILED


class ConnectionLost(RequestError):
    """The connection ended before the complete response was read."""

    kind = FailureKind.CONNECTION_LOST


class TimedOut(RequestError):
    """No complete response to a request was read within the time of one attempt.

    It concerns one attempt of one request. `CallTimedOut` instead concerns a whole call of a method
    of `Session`, and `PendingTimeout` a session that did not start in time.
    """

    kind = FailureKind.TIMED_OUT


class ProtocolError(RequestError):
    """The response does not have the format of the Skaha API."""

    kind = FailureKind.PROTOCOL


class BadRequest(RequestError):
    """The server refused the request."""

    kind = FailureKind.BAD_REQUEST


class QuotaExceeded(BadRequest):
    """The limit on the user's sessions is reached."""

    kind = FailureKind.QUOTA


class NotAuthenticated(RequestError):
    """The server requires credentials, or rejected the given ones."""

    kind = FailureKind.NOT_AUTHENTICATED


class NotAuthorized(RequestError):
    """The user is authenticated, but not permitted to make this request."""

    kind = FailureKind.NOT_AUTHORIZED


class NotFound(RequestError):
    """The user has no such session at present."""

    kind = FailureKind.NOT_FOUND


class Unavailable(RequestError):
    """The server asks to retry later."""

    kind = FailureKind.UNAVAILABLE


class ServerError(RequestError):
    """The server failed while it processed the request."""

    kind = FailureKind.SERVER_ERROR


class NotDestroyed(RequestError):
    """The session is still listed after a successful delete, or no list was available."""

    kind = FailureKind.NOT_DESTROYED


class UnknownEffect(RequestError):
    """The request may or may not have taken effect."""

    kind = FailureKind.UNKNOWN_EFFECT


class SessionFailed(RequestError):
    """The session ended as Failed."""

    kind = FailureKind.SESSION_FAILED


class WrongState(RequestError):
    """The session has ended, in a state that is not among those waited for."""

    kind = FailureKind.WRONG_STATE


class Vanished(RequestError):
    """The session is no longer listed."""

    kind = FailureKind.VANISHED


class PendingTimeout(RequestError):
    """The session was not started by the platform within *pending_timeout*.

    It concerns the state of a session; all requests may have succeeded. `TimedOut` instead concerns
    one attempt of one request, and `CallTimedOut` a whole call of a method of `Session`.
    """

    kind = FailureKind.PENDING_TIMEOUT


class NotOpened(RequestError):
    """The session's page could not be opened."""

    kind = FailureKind.NOT_OPENED


_BY_KIND: dict[FailureKind, type[RequestError]] = {
    error.kind: error
    for error in (
        BadRequest,
        ConnectFailed,
        ConnectionLost,
        NotAuthenticated,
        NotAuthorized,
        NotDestroyed,
        NotFound,
        NotOpened,
        PendingTimeout,
        ProtocolError,
        QuotaExceeded,
        ServerError,
        SessionFailed,
        TimedOut,
        Unavailable,
        UnknownEffect,
        Vanished,
        WrongState,
    )
}


def get_error_class(kind: FailureKind) -> type[RequestError]:
    """Return the exception class for *kind*; `RequestError` for kinds without a class."""
    return _BY_KIND.get(kind, RequestError)
