"""Operations: the request that each method builds, how its response is parsed, and its limits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Generic, TypeVar, cast, final

from anyio.lowlevel import checkpoint
from attrs import evolve, frozen

from kaleden._engine._config import Limits, check_number
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
    _requests,
    _responses,
    classify,
)

T = TypeVar("T")


@final
@frozen
class Operation(Generic[T]):
    """A request to send for each key, and how its response is parsed.

    Attributes:
        name: the name of the method of the client.
        build: builds the request for one key, or raises `InvalidRequest`.
        parse: parses a response with a status of success, or raises `MalformedResponse`.
        timeout: seconds for one attempt, from the slot of the limiter to the last byte of the
            response.
        id_of: returns the session id of a parsed value; a response about another session is a
            failure. None to skip that check.
        idempotent: whether a failed attempt is retried.
        server_wide: whether an overload that the server reports concerns all requests, and not only
            those of this operation.
        before_send: awaited before each attempt, with the slot held; raises `NotSent` to prevent
            it.
        check: returns the final outcome for the outcome of a request and its retries, after other
            requests if necessary; None to leave outcomes as they are.
        can_defer: whether the responses of many requests may be parsed together; not if *check*
            looks at parsed values.
        first: whether it is sent before all requests that wait, and in place of a read if that
            takes long.
    """

    name: str
    build: Callable[[Any], Request]
    parse: Callable[[Response], T]
    timeout: float
    id_of: Callable[[T], str] | None = None
    idempotent: bool = False
    server_wide: bool = True
    before_send: Callable[[], Awaitable[None]] | None = None
    check: Callable[[Outcome[T]], Awaitable[Outcome[T]]] | None = None
    can_defer: bool = True
    first: bool = False


@final
class NotSent(Exception):
    """A request was prevented before any part of it was sent.

    Args:
        kind: the kind of the failure.
        message: its message.
    """

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def to_failure(key: str, error: Exception, elapsed: float) -> Failure:
    """Convert an exception of an attempt; a request that was never sent has 0 attempts."""
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
    """Parse a response; an error status and an invalid body are failures."""
    error = classify(response)
    if error is not None:
        return Failure(
            key,
            error.kind,
            error.message,
            error.status,
            error.retry_after,
            sent=True,
            elapsed=elapsed,
        )

    received = Success(key, response, elapsed=elapsed)
    parse: object = operation.parse
    if isinstance(parse, IncrementalParser):
        return await _parse_incrementally(cast("IncrementalParser[T]", parse), received)

    return parse_deferred(operation, received)


def defer_parsing(operation: Operation[Any]) -> Operation[Response]:
    """Return the operation with responses as its values, which `parse_deferred` parses later."""
    return evolve(operation, parse=_identity, id_of=None)


def parse_deferred(operation: Operation[T], received: Success[Response]) -> Outcome[T]:
    """Parse a response with a status of success; never raises an error."""
    try:
        value = operation.parse(received.value)
    except MalformedResponse as error:
        return _fail_malformed(received, str(error))
    except Exception as error:  # noqa: BLE001  # every input has an outcome
        return _fail(received, FailureKind.INTERNAL, describe_bug(error))

    if operation.id_of is not None and operation.id_of(value) != received.key:
        message = f"the response is about session {operation.id_of(value)!r}"
        return _fail_malformed(received, message)

    omitted = received.value.omitted
    return Success(received.key, value, received.attempts, received.elapsed, omitted)


def describe_bug(error: Exception) -> str:
    """Describe an exception that is a fault of this library, or of the caller's transport."""
    return f"please report this: {type(error).__name__}: {error}"


async def _parse_incrementally(
    parse: IncrementalParser[T], received: Success[Response]
) -> Outcome[T]:
    """Parse a long response, with checkpoints in between."""
    steps = parse.steps(received.value)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return Success(received.key, cast("T", end.value), received.attempts, received.elapsed)
        except MalformedResponse as error:
            return _fail_malformed(received, str(error))
        await checkpoint()


def _identity(response: Response) -> Response:
    return response


def _fail_malformed(received: Success[Response], problem: str) -> Failure:
    return _fail(received, FailureKind.PROTOCOL, problem)


def _fail(received: Success[Response], kind: FailureKind, problem: str) -> Failure:
    """Turn a response into a failure, with its attempts and its time."""
    status, attempts, elapsed = received.value.status, received.attempts, received.elapsed
    return Failure(received.key, kind, problem, status, None, True, attempts, elapsed)


def fetch(
    limits: Limits,
    kind: str | None = None,
    status: str | None = None,
    view: str | None = None,
    *,
    retry: bool = True,
) -> Operation[Listing]:
    """List sessions."""
    request = _requests.build_list(kind, status, view)
    return _build_single("fetch", request, _responses.parse_list, limits, retry=retry)


def raw_fetch(
    limits: Limits, kind: str | None = None, status: str | None = None, view: str | None = None
) -> Operation[list[Any]]:
    """List sessions as the JSON objects of the server."""
    return _build_single(
        "fetch", _requests.build_list(kind, status, view), _responses.parse_raw_list, limits
    )


def apps(limits: Limits, session: str) -> Operation[Listing]:
    """List the applications of a desktop session."""
    return _build_single("apps", _requests.build_apps(session), _responses.parse_list, limits)


def stats(limits: Limits) -> Operation[PlatformStats]:
    """Read the load of the platform.

    The server responds with 503 and Retry-After whenever it has no metrics, which does not mean
    that it is overloaded.
    """
    return _build_single(
        "stats",
        _requests.build_stats(),
        _responses.parse_stats,
        limits,
        retry=False,
        server_wide=False,
    )


def images(limits: Limits, kind: str | None = None) -> Operation[tuple[Image, ...]]:
    """List images."""
    return _build_single("images", _requests.build_images(kind), _responses.parse_images, limits)


def context(limits: Limits) -> Operation[ResourceOptions]:
    """Read the resources that a session may request."""
    return _build_single("context", _requests.build_context(), _responses.parse_context, limits)


def repositories(limits: Limits) -> Operation[tuple[str, ...]]:
    """List the image registries."""
    return _build_single(
        "repositories", _requests.build_repositories(), _responses.parse_repositories, limits
    )


def availability(limits: Limits) -> Operation[Availability]:
    """Read whether the server reports itself available."""
    return _build_single(
        "availability", _requests.build_availability(), _responses.parse_availability, limits
    )


def raw_availability(limits: Limits) -> Operation[Response]:
    """Read the response to `availability`, unparsed, for its headers."""
    return _build_single("doctor", _requests.build_availability(), _identity, limits)


def _build_single(
    name: str,
    request: Request,
    parse: Callable[[Response], T],
    limits: Limits,
    *,
    retry: bool = True,
    server_wide: bool = True,
) -> Operation[T]:
    """Build an operation of one request that does not concern a particular session."""
    return Operation(
        name, lambda _: request, parse, limits.timeout, idempotent=retry, server_wide=server_wide
    )


def info(limits: Limits) -> Operation[SessionInfo]:
    """Read one session."""
    return Operation(
        "info",
        _requests.build_info,
        _responses.parse_info,
        limits.timeout,
        id_of=lambda info: info.id,
        idempotent=True,
    )


def raw_info(limits: Limits) -> Operation[dict[str, Any]]:
    """Read one session as the JSON object of the server."""
    return Operation(
        "raw info",
        _requests.build_info,
        _responses.parse_raw_info,
        limits.timeout,
        id_of=lambda info: str(info.get("id", "")),
        idempotent=True,
    )


def check_max_bytes(name: str, number: int | None) -> None:
    """Check an argument that limits the bytes of a log; None for no limit.

    Raises:
        InvalidRequest: it is not a number of bytes.
    """
    if number is not None:
        check_number(name, number, "bytes", whole=True, least=1, error=InvalidRequest)


def logs(limits: Limits, max_bytes: int | None = None) -> Operation[str]:
    """Read the output of one session, or its last *max_bytes*; by default what *max_body* allows.

    Raises:
        InvalidRequest: *max_bytes* is not a number of bytes.
    """
    check_max_bytes("max_bytes", max_bytes)
    build = partial(_requests.build_logs, max_body=max_bytes)
    return Operation("logs", build, _responses.parse_logs, limits.timeout, idempotent=True)


def events(limits: Limits) -> Operation[tuple[Event, ...]]:
    """Read the platform events of one session."""
    return Operation(
        "events", _requests.build_events, _responses.parse_events, limits.timeout, idempotent=True
    )


def renew(limits: Limits) -> Operation[bool]:
    """Extend the lifetime of one session."""
    return Operation(
        "renew", _requests.build_renew, _responses.parse_done, limits.timeout, idempotent=True
    )


def destroy(limits: Limits, *, idempotent: bool = True) -> Operation[bool]:
    """Delete one session; a response of success does not prove that the session has ended."""
    return Operation(
        "destroy",
        _requests.build_destroy,
        _responses.parse_done,
        limits.timeout,
        idempotent=idempotent,
    )


def create(
    limits: Limits,
    launch: Launch,
    headers: Headers = (),
    before_send: Callable[[], Awaitable[None]] | None = None,
) -> Operation[str]:
    """Launch one session; see `kaleden._sessions._launch._launcher` for its retries."""
    request = _requests.build_create(launch, headers=headers)
    return Operation(
        "create",
        lambda _: request,
        _responses.parse_create,
        limits.create_timeout,
        before_send=before_send,
    )


def follow(limits: Limits) -> Operation[bytes]:
    """Read the output of one session as bytes; not retried, since the follower polls anyway."""
    return Operation("follow", _requests.build_logs, _parse_log_bytes, limits.timeout)


def _parse_log_bytes(response: Response) -> bytes:
    """Return a log as bytes, since its last character may be incomplete."""
    # The content type and the first bytes suffice to recognise an HTML page in place of a log.
    _responses.parse_logs(evolve(response, body=response.body[:1024]))
    return response.body
