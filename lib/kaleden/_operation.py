"""What an operation is, and how the replies to it are judged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast, final

from anyio.lowlevel import checkpoint
from attrs import frozen

from kaleden._errors import FailureKind
from kaleden._outcomes import Failure, Outcome, Success
from kaleden._wire import InTurns, Request, Response, UnreadableReply, classify

T = TypeVar("T")


@final
@frozen
class Operation(Generic[T]):
    """What to do with each key.

    Attributes:
        name: the session method, as it is shown to the user.
        build: makes the request for one key, or raises `InvalidRequest`.
        parse: reads the value from a reply with a good status.
        timeout: seconds for one attempt, from the gate to the last byte of the reply.
        about: tells which session a value is of; a reply about another one is no reply.
        repeats: whether to try again after what may pass: that does no harm, and nobody else does.
        general: whether a refusal is about the server as a whole, and not about this request.
    """

    name: str
    build: Callable[[Any], Request]
    parse: Callable[[Response], T]
    timeout: float
    about: Callable[[T], str] | None = None
    repeats: bool = False
    general: bool = True


async def judge(
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

    try:
        value = await _parse(operation.parse, response)
    except UnreadableReply as error:
        problem = str(error)
    else:
        if operation.about is None or operation.about(value) == key:
            return Success(key, value, elapsed=elapsed)

        problem = f"the reply is about session {operation.about(value)!r}"

    return Failure(key, FailureKind.PROTOCOL, problem, response.status, sent=True, elapsed=elapsed)


async def _parse(parse: Callable[[Response], T], response: Response) -> T:
    """Read a reply, and let others have their turn in between."""
    if not isinstance(parse, InTurns):
        return parse(response)

    reading = cast("InTurns[T]", parse).turns(response)
    while True:
        try:
            next(reading)
        except StopIteration as end:
            return cast("T", end.value)
        await checkpoint()
