"""The operations: for each method, the request it builds, the reply it parses, and its limits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar, cast, final

from anyio.lowlevel import checkpoint
from attrs import evolve, frozen

from kaleden import _wire
from kaleden._engine._config import Limits
from kaleden._errors import FailureKind, InvalidRequest
from kaleden._http import TransportError
from kaleden._results._batch import Failure, Outcome, Success
from kaleden._wire import (
    Availability,
    Event,
    Headers,
    Image,
    IncrementalParser,
    Launch,
    Listing,
    MalformedResponse,
    PlatformStats,
    Request,
    ResourceOptions,
    Response,
    SessionInfo,
    classify,
)

T = TypeVar("T")


@final
@frozen
class Operation(Generic[T]):
    """A request to send for each key, and how its response is read.

    Attributes:
        name: the name of the session method.
        build: builds the request for one key, or raises `InvalidRequest`.
        parse: reads the value from a response with a good status, or raises `MalformedResponse`.
        timeout: seconds for one attempt, from the slot of the limiter to the last byte of the
            response.
        id_of: reads the id of the session from a value; a response about another session is a
            failure.
        idempotent: whether a failed attempt is retried.
        server_wide: whether an overload that the server reports concerns all requests, and not only
            this kind.
        before_send: awaited before each attempt, with the slot held; raises `NotSent` to prevent
            it.
    """

    name: str
    build: Callable[[Any], Request]
    parse: Callable[[Response], T]
    timeout: float
    id_of: Callable[[T], str] | None = None
    idempotent: bool = False
    server_wide: bool = True
    before_send: Callable[[], Awaitable[None]] | None = None


@final
class NotSent(Exception):
    """A request was prevented before anything of it was sent.

    Args:
        kind: the kind of the failure.
        message: its message.
    """

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def to_failure(key: str, error: Exception, elapsed: float) -> Failure:
    """Convert an exception of an attempt; one that was never sent counts 0 attempts."""
    if isinstance(error, InvalidRequest):
        return Failure(key, FailureKind.INVALID, str(error), attempts=0, elapsed=elapsed)

    if isinstance(error, NotSent):
        return Failure(key, error.kind, str(error), attempts=0, elapsed=elapsed)

    if isinstance(error, TransportError):
        sent, final = error.sent, error.final
        return Failure(key, error.kind, error.message, sent=sent, final=final, elapsed=elapsed)

    return Failure(key, FailureKind.INTERNAL, describe_bug(error), sent=True, elapsed=elapsed)


async def parse_response(
    key: str, operation: Operation[T], response: Response, elapsed: float
) -> Outcome[T]:
    """Read a reply: what the server refuses, and what cannot be read, are failures."""
    refusal = classify(response)
    if refusal is not None:
        return Failure(
            key,
            refusal.kind,
            refusal.message,
            refusal.status,
            refusal.retry_after,
            sent=True,
            elapsed=elapsed,
        )

    reply = Success(key, response, elapsed=elapsed)
    parse: object = operation.parse
    if isinstance(parse, IncrementalParser):
        return await _parse_incrementally(cast("IncrementalParser[T]", parse), reply)

    return parse_deferred(operation, reply)


def without_parsing(operation: Operation[Any]) -> Operation[Response]:
    """Make the operation whose values are the replies with a good status, for `read` to read."""
    return evolve(operation, parse=_identity, id_of=None)


def parse_deferred(operation: Operation[T], reply: Success[Response]) -> Outcome[T]:
    """Read the value from a reply with a good status; never raises an error."""
    try:
        value = operation.parse(reply.value)
    except MalformedResponse as error:
        return _malformed(reply, str(error))
    except Exception as error:  # noqa: BLE001  # every input has an outcome, whatever went wrong
        return _failed(reply, FailureKind.INTERNAL, describe_bug(error))

    if operation.id_of is not None and operation.id_of(value) != reply.key:
        return _malformed(reply, f"the reply is about session {operation.id_of(value)!r}")

    return Success(reply.key, value, reply.attempts, reply.elapsed)


def describe_bug(error: Exception) -> str:
    """Say that something went wrong that never should."""
    return f"please report this: {type(error).__name__}: {error}"


async def _parse_incrementally(parse: IncrementalParser[T], reply: Success[Response]) -> Outcome[T]:
    """Read a long reply, and let others have their turn in between."""
    reading = parse.steps(reply.value)
    while True:
        try:
            next(reading)
        except StopIteration as end:
            return Success(reply.key, cast("T", end.value), reply.attempts, reply.elapsed)
        except MalformedResponse as error:
            return _malformed(reply, str(error))
        await checkpoint()


def _identity(response: Response) -> Response:
    return response


def _malformed(reply: Success[Response], problem: str) -> Failure:
    return _failed(reply, FailureKind.PROTOCOL, problem)


def _failed(reply: Success[Response], kind: FailureKind, problem: str) -> Failure:
    status, attempts, elapsed = reply.value.status, reply.attempts, reply.elapsed
    return Failure(reply.key, kind, problem, status, None, True, attempts, elapsed)


def fetch(
    limits: Limits,
    kind: str | None = None,
    status: str | None = None,
    view: str | None = None,
    *,
    retry: bool = True,
) -> Operation[Listing]:
    """List sessions."""
    request = _wire.build_list(kind, status, view)
    return _single("fetch", request, _wire.parse_list, limits, retry=retry)


def raw_fetch(
    limits: Limits, kind: str | None = None, status: str | None = None, view: str | None = None
) -> Operation[list[Any]]:
    """List sessions as the server's own objects."""
    return _single("fetch", _wire.build_list(kind, status, view), _wire.parse_raw_list, limits)


def apps(limits: Limits, session: str) -> Operation[Listing]:
    """List the applications of a desktop session."""
    return _single("apps", _wire.build_apps(session), _wire.parse_list, limits)


def stats(limits: Limits) -> Operation[PlatformStats]:
    """Read the load of the platform.

    The server answers this request with 503 and Retry-After whenever it has no metrics, which does
    not mean that it is overloaded.
    """
    return _single(
        "stats", _wire.build_stats(), _wire.parse_stats, limits, retry=False, server_wide=False
    )


def images(limits: Limits, kind: str | None = None) -> Operation[tuple[Image, ...]]:
    """List images."""
    return _single("images", _wire.build_images(kind), _wire.parse_images, limits)


def context(limits: Limits) -> Operation[ResourceOptions]:
    """Read the resources that a session may request."""
    return _single("context", _wire.build_context(), _wire.parse_context, limits)


def repositories(limits: Limits) -> Operation[tuple[str, ...]]:
    """List the registries of images."""
    return _single("repositories", _wire.build_repositories(), _wire.parse_repositories, limits)


def availability(limits: Limits) -> Operation[Availability]:
    """Read whether the server reports itself available."""
    return _single("availability", _wire.build_availability(), _wire.parse_availability, limits)


def raw_availability(limits: Limits) -> Operation[Response]:
    """Read the response to `availability`, unparsed, for its headers."""
    return _single("doctor", _wire.build_availability(), _identity, limits)


def _single(
    name: str,
    request: Request,
    parse: Callable[[Response], T],
    limits: Limits,
    *,
    retry: bool = True,
    server_wide: bool = True,
) -> Operation[T]:
    """Build an operation that is one request, about no session in particular."""
    return Operation(
        name,
        lambda _: request,
        parse,
        limits.timeout,
        idempotent=retry,
        server_wide=server_wide,
    )


def info(limits: Limits) -> Operation[SessionInfo]:
    """Read one session."""
    return Operation(
        "info",
        _wire.build_info,
        _wire.parse_info,
        limits.timeout,
        id_of=lambda info: info.id,
        idempotent=True,
    )


def raw_info(limits: Limits) -> Operation[dict[str, Any]]:
    """Read one session, as the server tells of it."""
    return Operation(
        "raw info",
        _wire.build_info,
        _wire.parse_raw_info,
        limits.timeout,
        id_of=lambda found: str(found.get("id", "")),
        idempotent=True,
    )


def logs(limits: Limits) -> Operation[str]:
    """Read one session's output."""
    return Operation("logs", _wire.build_logs, _wire.parse_logs, limits.timeout, idempotent=True)


def events(limits: Limits) -> Operation[tuple[Event, ...]]:
    """Read what the platform reports of one session."""
    return Operation(
        "events", _wire.build_events, _wire.parse_events, limits.timeout, idempotent=True
    )


def renew(limits: Limits) -> Operation[bool]:
    """Put off one session's expiry."""
    return Operation("renew", _wire.build_renew, _wire.parse_done, limits.timeout, idempotent=True)


def destroy(limits: Limits, *, idempotent: bool = True) -> Operation[bool]:
    """Ask for one session's end; the server's answer proves nothing."""
    return Operation(
        "destroy", _wire.build_destroy, _wire.parse_done, limits.timeout, idempotent=idempotent
    )


def create(
    limits: Limits,
    launch: Launch,
    headers: Headers = (),
    before_send: Callable[[], Awaitable[None]] | None = None,
) -> Operation[str]:
    """Launch one session; see `kaleden._sessions._launch._launcher` for its retries."""
    request = _wire.build_create(launch, headers=headers)
    return Operation(
        "create",
        lambda _: request,
        _wire.parse_create,
        limits.create_timeout,
        before_send=before_send,
    )


def follow(limits: Limits) -> Operation[bytes]:
    """Read the bytes of one session's output; the follower polls, so that nothing is retried."""
    return Operation("follow", _wire.build_logs, _log_bytes, limits.timeout)


def _log_bytes(response: Response) -> bytes:
    """Read a log as bytes, since its last character may be incomplete."""
    # An HTML page instead of a log is recognised by its type and its beginning.
    _wire.parse_logs(evolve(response, body=response.body[:1024]))
    return response.body
