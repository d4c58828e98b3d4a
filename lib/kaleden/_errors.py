"""The error tree.

::

    KaledenError
    ├── ConfigurationError (ValueError)        the client cannot be built from this
    ├── InvalidRequest (ValueError)            refused here, before anything was sent
    ├── LedgerError (OSError)                  the ledger cannot be read or written
    ├── SessionNotOpen (RuntimeError)          used outside ``async with``
    ├── SessionForked (RuntimeError)           used in a child of the process whose it is
    ├── WrongEventLoop (RuntimeError)          used in another event loop than it was entered in
    ├── WrongThread (RuntimeError)             used in the thread that would have to do it
    ├── CallTimedOut (TimeoutError)            the ``timeout`` of a `Session`'s method was over
    ├── ScopeClosed (RuntimeError)             used after its block was left
    ├── ScopeError                             sessions that may have outlived their scope
    ├── RequestError                           one request failed; ``.failure`` says how
    │   ├── ConnectFailed                      nothing was sent
    │   ├── ConnectionLost                     sent, and the reply never came whole
    │   ├── TimedOut                           sent, and the time ran out
    │   ├── ProtocolError                      a reply that is not the Skaha API's
    │   ├── BadRequest                         the server refused what was asked
    │   │   └── QuotaExceeded                  ... because a limit of the user is reached
    │   ├── NotAuthenticated                   log in first
    │   ├── NotAuthorized                      logged in, and not allowed to
    │   ├── NotFound                           no such session, now
    │   ├── Unavailable                        ask again later
    │   ├── ServerError                        the server failed
    │   ├── NotDestroyed                       still listed after its delete, or nobody can tell
    │   ├── UnknownEffect                      it may, or may not, have been done
    │   ├── SessionFailed                      the session itself ended as Failed
    │   ├── WrongState                         it reached an end, and not the one waited for
    │   ├── Vanished                           it is no longer listed
    │   ├── PendingTimeout                     it did not start in time
    │   └── NotOpened                          the session's page could not be opened
    └── BatchError (ExceptionGroup)            some of a batch failed; ``.outcomes`` has them all

What a request came to is told by a `FailureKind`; `RequestError` and its children are the same
facts as exceptions, for those who want to raise.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from kaleden._results._outcome import Failure


class FailureKind(StrEnum):
    """What became of a request that did not succeed, by what its caller can do next."""

    INVALID = "invalid"
    """Refused here, before anything was sent: mend the arguments."""
    CONNECT_FAILED = "connect_failed"
    """No connection: nothing was sent, so nothing was done."""
    CONNECTION_LOST = "connection_lost"
    """The connection ended before the whole reply was read."""
    TIMED_OUT = "timed_out"
    """No whole reply within the attempt's time."""
    PROTOCOL = "protocol"
    """The reply cannot be read: is this a Skaha server?"""
    BAD_REQUEST = "bad_request"
    """The server refused what was asked (HTTP 400 and other 4xx)."""
    QUOTA = "quota"
    """A limit on the user's sessions is reached."""
    NOT_AUTHENTICATED = "not_authenticated"
    """No credentials, or they are expired or unknown."""
    NOT_AUTHORIZED = "not_authorized"
    """Known to the server, and not allowed to do this."""
    NOT_FOUND = "not_found"
    """No such session: never was, ended and was forgotten, or somebody else's."""
    UNAVAILABLE = "unavailable"
    """The server asks to come back later (HTTP 429 and 503)."""
    SERVER_ERROR = "server_error"
    """The server failed (other 5xx). What was asked may have been done all the same."""
    NOT_DESTROYED = "not_destroyed"
    """The delete was answered, and a later list still shows the session, or there was no list."""
    UNKNOWN_EFFECT = "unknown_effect"
    """It may have been done: the request went out and its answer was lost."""
    SESSION_FAILED = "session_failed"
    """The session ended, and not well: its log and events tell why."""
    WRONG_STATE = "wrong_state"
    """The session has ended in a state from which it never reaches the one that was waited for."""
    VANISHED = "vanished"
    """The session is no longer listed: deleted, or forgotten an hour after its end."""
    PENDING_TIMEOUT = "pending_timeout"
    """The session did not start in time."""
    NOT_OPENED = "not_opened"
    """The session's page was not opened: it is not Running, has none, or no browser is here."""
    INTERNAL = "internal"
    """A fault in kaleden or in the transport it was given: please report it."""

    @property
    def may_have_taken_effect(self) -> bool:
        """Whether what was asked may have been done all the same."""
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
    """Base of every error that kaleden raises on purpose."""


class ConfigurationError(KaledenError, ValueError):
    """The client cannot be built from these arguments; the message says what to change."""


class InvalidRequest(KaledenError, ValueError):
    """The arguments were refused before anything was sent; the message says what to change."""


class SessionNotOpen(KaledenError, RuntimeError):
    """The client was used before it was entered or after it was left."""


class SessionForked(KaledenError, RuntimeError):
    """The client was used in a child of the process that it belongs to, by ``os.fork``."""


class WrongEventLoop(KaledenError, RuntimeError):
    """The client was used in another event loop than the one it was entered in."""


class WrongThread(KaledenError, RuntimeError):
    """A `Session` was used in its own thread, which would have waited for itself."""


class CallTimedOut(KaledenError, TimeoutError):
    """The ``timeout`` of a call was over; what it had begun was given up and cleaned up."""


class ScopeClosed(KaledenError, RuntimeError):
    """The scope was used outside its block."""


class ScopeError(KaledenError):
    """The clean-up of a scope could not end everything in its time.

    Args:
        survivors: ids of the sessions that are still there, or that nobody could verify.
        launches: names of sessions that may yet appear: their creates were never answered.
    """

    def __init__(self, survivors: tuple[str, ...], launches: tuple[str, ...] = ()) -> None:
        super().__init__(survivors, launches)
        self.survivors = survivors
        self.launches = launches

    def __str__(self) -> str:
        parts: list[str] = []
        if self.survivors:
            parts.append(f"these sessions may be left: {', '.join(self.survivors)}")
        if self.launches:
            parts.append(f"sessions of these names may yet appear: {', '.join(self.launches)}")
        return "; ".join(parts)


class RequestError(KaledenError):
    """One request failed.

    Args:
        failure: what is known of it, as data.
    """

    kind: ClassVar[FailureKind] = FailureKind.INTERNAL

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure

    def __str__(self) -> str:
        return str(self.failure)


class ConnectFailed(RequestError):
    """No connection to the server: nothing was sent."""

    kind = FailureKind.CONNECT_FAILED


class ConnectionLost(RequestError):
    """The connection ended before the whole reply was read."""

    kind = FailureKind.CONNECTION_LOST


class TimedOut(RequestError):
    """The attempt's time ran out before the whole reply was read."""

    kind = FailureKind.TIMED_OUT


class ProtocolError(RequestError):
    """The reply is not one that the Skaha API gives."""

    kind = FailureKind.PROTOCOL


class BadRequest(RequestError):
    """The server refused what was asked."""

    kind = FailureKind.BAD_REQUEST


class QuotaExceeded(BadRequest):
    """A limit on the user's sessions is reached."""

    kind = FailureKind.QUOTA


class NotAuthenticated(RequestError):
    """The server wants credentials, or did not accept these."""

    kind = FailureKind.NOT_AUTHENTICATED


class NotAuthorized(RequestError):
    """The server knows the user, who may not do this."""

    kind = FailureKind.NOT_AUTHORIZED


class NotFound(RequestError):
    """The server knows no such session of this user, now."""

    kind = FailureKind.NOT_FOUND


class Unavailable(RequestError):
    """The server asks to come back later."""

    kind = FailureKind.UNAVAILABLE


class ServerError(RequestError):
    """The server failed while it worked on the request."""

    kind = FailureKind.SERVER_ERROR


class NotDestroyed(RequestError):
    """The session is still listed after its delete was answered, or no list could be had."""

    kind = FailureKind.NOT_DESTROYED


class UnknownEffect(RequestError):
    """What was asked may, or may not, have been done."""

    kind = FailureKind.UNKNOWN_EFFECT


class SessionFailed(RequestError):
    """The session ended as Failed."""

    kind = FailureKind.SESSION_FAILED


class WrongState(RequestError):
    """The session ended in another state than the one that was waited for."""

    kind = FailureKind.WRONG_STATE


class Vanished(RequestError):
    """The session is no longer listed."""

    kind = FailureKind.VANISHED


class PendingTimeout(RequestError):
    """The session did not start in time."""

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
    """Find the exception that says the same as *kind*; `RequestError` itself for the others."""
    return _BY_KIND.get(kind, RequestError)
