"""One request, and the fan-out over many.

`Engine.attempt` takes a request through the house: built, admitted by the gate, sent, classified,
parsed. It never raises an error; what went wrong is its result. `Engine.collect` and
`Engine.stream` let a handful of workers draw keys from one iterator, so what waits costs nothing
but its place in the caller's own iterable.
"""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Sized,
)
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, Generic, Protocol, Self, TypeAlias, TypeVar, cast, final

import anyio
from anyio.lowlevel import checkpoint, current_token
from anyio.streams.memory import MemoryObjectReceiveStream
from attrs import evolve, frozen

from kaleden._errors import FailureKind, InvalidRequest, SessionNotOpen, WrongEventLoop
from kaleden._gate import Gate
from kaleden._handoff import Deliver, open_handoff
from kaleden._http import Transport, TransportError
from kaleden._outcomes import Failure, Outcome, Outcomes, Success
from kaleden._source import Keys, as_target, open_source
from kaleden._tasks import open_task_group
from kaleden._wire import Request, Response, UnreadableReply, classify, shown

T = TypeVar("T")

_CLOSE_TIMEOUT: Final = 5.0
"""Seconds for what is given up to end, connections included."""

Perform: TypeAlias = Callable[[Any], Awaitable[Outcome[T]]]


_SIZED: Final = (list, tuple, set, frozenset, dict, range)


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
    """

    name: str
    build: Callable[[Any], Request]
    parse: Callable[[Response], T]
    timeout: float
    about: Callable[[T], str] | None = None


class Sink(Protocol[T]):
    """Where a worker's outcomes go."""

    def claim(self, key: str) -> bool:
        """Tell whether *key* is to be asked for; a second claim of it may be refused."""
        ...

    async def deliver(self, outcome: Outcome[T]) -> None:
        """Take one outcome; may wait until there is room for it."""
        ...


@final
class Collected(Generic[T]):
    """A sink that keeps everything, one outcome per distinct key, in the order of the claims.

    Attributes:
        known: the outcome of each key that was claimed; None while it is on its way.
    """

    def __init__(self) -> None:
        self.known: dict[str, Outcome[T] | None] = {}

    def claim(self, key: str) -> bool:
        """Take *key* the first time it comes."""
        if key in self.known:
            return False

        self.known[key] = None
        return True

    async def deliver(self, outcome: Outcome[T]) -> None:
        """Keep *outcome*."""
        self.known[outcome.key] = outcome

    @property
    def done(self) -> list[Outcome[T]]:
        """The outcomes that are known by now."""
        return [outcome for outcome in self.known.values() if outcome is not None]

    @property
    def pending(self) -> list[str]:
        """The keys that were claimed and have no outcome yet."""
        return [key for key, outcome in self.known.items() if outcome is None]


@final
class _Handed(Generic[T]):
    """A sink that hands each outcome to the consumer of a stream and keeps nothing."""

    def __init__(self, deliver: Deliver[Outcome[T]]) -> None:
        self._deliver = deliver

    def claim(self, key: str) -> bool:  # noqa: ARG002  # to know what came would take memory per key
        return True

    async def deliver(self, outcome: Outcome[T]) -> None:
        await self._deliver(outcome)


@final
class OutcomeStream(Generic[T]):
    """The outcomes of a stream, each as soon as it is known: ``async for outcome in results``.

    Nothing is kept: a worker holds its outcome until it is taken, and asks for no other one
    meanwhile.
    """

    __slots__ = ("_receive",)

    def __init__(self, receive: MemoryObjectReceiveStream[Outcome[T]]) -> None:
        self._receive = receive

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome[T]:
        try:
            return await self._receive.__anext__()
        except anyio.ClosedResourceError:
            raise SessionNotOpen("this stream's block was left: use it inside") from None


@final
class Engine:
    """Sends requests through one gate and one transport, in the event loop in which it was made.

    Args:
        gate: admits requests.
        transport: carries them.
    """

    def __init__(self, gate: Gate, transport: Transport) -> None:
        self.gate = gate
        self.transport = transport
        self._loop = current_token()
        self._closed = False
        self._attempts: set[anyio.CancelScope] = set()
        self._calm = anyio.Event()

    async def aclose(self) -> None:
        """Give up what is on its way, and refuse every later use.

        What is given up becomes a failure of its call, which some other task may wait for.
        """
        self._closed = True
        for attempt in self._attempts:
            attempt.cancel()
        with anyio.move_on_after(_CLOSE_TIMEOUT, shield=True):
            while self._attempts:
                await self._calm.wait()

    def check(self) -> None:
        """Make sure that requests can be sent, and from here.

        Raises:
            SessionNotOpen: the client was left.
            WrongEventLoop: this is another event loop than the client's.
        """
        if self._closed:
            raise SessionNotOpen("this session is closed: use it inside its `async with` block")

        if current_token() != self._loop:
            msg = (
                "this session belongs to the event loop in which it was entered: its connections "
                "and its limit live there. Enter another AsyncSession here, or come back to that "
                "loop with anyio.from_thread.run"
            )
            raise WrongEventLoop(msg)

    async def ask(self, operation: Operation[T]) -> T:
        """Send the one request of an operation that is about no session in particular.

        Raises:
            RequestError: the request failed.
            InvalidRequest: it was refused before it was sent.
        """
        [outcome] = await self.collect(operation, [operation.name])
        if isinstance(outcome, Failure):
            raise outcome.to_exception()

        return outcome.value

    async def collect(self, operation: Operation[T], keys: Keys) -> Outcomes[T]:
        """Run *operation* over *keys* and gather what became of them.

        Args:
            operation: what to do with each key.
            keys: the keys; one that comes twice is asked for once.
            into: where to gather, for a caller who needs what is known also when this does not
                return.

        Returns:
            One outcome per distinct key, in the order in which the keys came.

        Raises:
            Exception: only what the caller's own iterable raised.
        """
        self.check()
        await checkpoint()
        sink = Collected[T]()
        await self.fan_out(partial(self.attempt, operation), keys, sink)
        return Outcomes(operation.name, sink.done, again=partial(self.collect, operation))

    @asynccontextmanager
    async def stream(self, operation: Operation[T], keys: Keys) -> AsyncGenerator[OutcomeStream[T]]:
        """Run *operation* over *keys* and hand on each outcome once it is known, in no set order.

        Leaving the block early cancels what is on its way.
        """
        self.check()
        await checkpoint()

        async def produce(deliver: Deliver[Outcome[T]]) -> None:
            await self.fan_out(partial(self.attempt, operation), keys, _Handed(deliver))

        async with open_handoff(produce) as receive:
            yield OutcomeStream(receive)

    async def fan_out(
        self,
        perform: Perform[T],
        keys: Keys,
        sink: Sink[T],
        workers: int | None = None,
    ) -> None:
        """Let workers draw from *keys*, perform each, and deliver what came of it to *sink*.

        Args:
            perform: makes an outcome of one item of *keys*; never raises an error.
            keys: what to perform.
            sink: where outcomes go.
            workers: how many work at once, at most; None leaves it to the gate.
        """
        async with open_source(keys) as source, open_task_group() as group:
            for _ in range(self._workers(keys, workers)):
                group.start_soon(self._work, perform, source, sink)

    def _workers(self, keys: Keys, most: int | None) -> int:
        limit = self.gate.limit
        # Of anything else the length may be that of now: a queue's, say.
        length = len(cast("Sized", keys)) if isinstance(keys, _SIZED) else limit
        return min(limit, most or limit, length)

    async def _work(self, perform: Perform[T], source: AsyncIterator[Any], sink: Sink[T]) -> None:
        async for item in source:
            target = as_target(item)
            if sink.claim(_key(target)):
                await sink.deliver(await perform(target))
            else:
                # Without this a million repeated ids would hold the event loop until the last.
                await checkpoint()

    async def attempt(self, operation: Operation[T], target: Any) -> Outcome[T]:
        """Wait for a turn, send one request, and say what became of it; never raises an error."""
        started = anyio.current_time()
        async with self.gate:
            outcome = await self.exchange(operation, target)

        return evolve(outcome, elapsed=anyio.current_time() - started)

    async def exchange(self, operation: Operation[T], target: Any) -> Outcome[T]:
        """Send one request, for a caller who has a place at the gate; never raises an error."""
        key = _key(target)
        try:
            request = operation.build(target)
            return _judge(key, operation, await self._send(request, operation.timeout))
        except InvalidRequest as error:
            # Without this a million bad ids would hold the event loop until the last.
            await checkpoint()
            return Failure(key, FailureKind.INVALID, str(error), attempts=0)
        except TransportError as error:
            return Failure(key, error.kind, error.message, sent=error.sent)
        except Exception as error:  # noqa: BLE001  # every input has an outcome, whatever went wrong
            message = f"please report this: {type(error).__name__}: {error}"
            return Failure(key, FailureKind.INTERNAL, message, sent=True)

    async def _send(self, request: Request, seconds: float) -> Response:
        if self._closed:
            message = "the session was closed before this was sent"
            raise TransportError(FailureKind.CONNECT_FAILED, message, sent=False)

        with anyio.move_on_after(seconds) as attempt:
            self._attempts.add(attempt)
            try:
                return await self.transport.send(request)
            finally:
                self._attempts.discard(attempt)
                if self._closed and not self._attempts:
                    self._calm.set()

        if self._closed:
            message = "the session was closed while this was on its way"
            raise TransportError(FailureKind.CONNECTION_LOST, message, sent=True)

        raise TransportError(
            FailureKind.TIMED_OUT, f"no whole reply within {seconds:g} seconds", sent=True
        )


def _judge(key: str, operation: Operation[T], response: Response) -> Outcome[T]:
    """Read a reply: what the server refuses, and what cannot be read, are failures."""
    refusal = classify(response)
    if refusal is not None:
        kind, message, retry_after = refusal.kind, refusal.message, refusal.retry_after
        return Failure(key, kind, message, response.status, retry_after, sent=True)

    try:
        value = operation.parse(response)
    except UnreadableReply as error:
        return Failure(key, FailureKind.PROTOCOL, str(error), response.status, sent=True)

    if operation.about is not None and operation.about(value) != key:
        message = f"the reply is about session {operation.about(value)!r}"
        return Failure(key, FailureKind.PROTOCOL, message, response.status, sent=True)

    return Success(key, value)


def _key(target: Any) -> str:
    """Name an outcome, also of what is no id at all and will be refused."""
    return target if isinstance(target, str) else f"<{shown(target)}>"
