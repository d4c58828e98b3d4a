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
)
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, Generic, Self, TypeAlias, TypeVar, final

import anyio
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled, current_token
from attrs import evolve

from kaleden._engine._channel import Channel, SendItem, open_channel
from kaleden._engine._collectors import Collector, DeferredParsing, Sink, ToChannel, with_progress
from kaleden._engine._config import MAX_PAUSE, RetryPolicy, is_overload
from kaleden._engine._limiter import Limiter, Paused
from kaleden._engine._operations import Operation, describe_bug, parse_response, without_parsing
from kaleden._engine._retry import Retrier
from kaleden._engine._targets import Keys, length_of, open_source, to_target
from kaleden._engine._tasks import open_task_group
from kaleden._engine._timeouts import OwnTimeout, RequestTimeout, SharedTimeout, TimeoutMonitor
from kaleden._errors import FailureKind, InvalidRequest, SessionNotOpen, WrongEventLoop
from kaleden._http import Transport, TransportError
from kaleden._results._batch import Failure, Outcome, Outcomes
from kaleden._results._progress import OK, ProgressCallback, check_progress
from kaleden._wire import IncrementalParser, Request, Response, format_value

T = TypeVar("T")

_CLOSE_TIMEOUT: Final = 5.0
"""Seconds for what is given up to end, connections included."""

PerformItem: TypeAlias = Callable[[Any, RequestTimeout], Awaitable[Outcome[T]]]


@final
class OutcomeStream(Generic[T]):
    """The outcomes of a stream, each as soon as it is known: ``async for outcome in results``.

    Nothing is kept: a worker holds its outcome until it is taken, and asks for no other one
    meanwhile.
    """

    __slots__ = ("_receive",)

    def __init__(self, receive: Channel[Outcome[T]]) -> None:
        self._receive = receive

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome[T]:
        try:
            return await self._receive.__anext__()
        except anyio.ClosedResourceError:
            raise SessionNotOpen("this stream's block was left: use it inside") from None

    def receive_nowait(self) -> list[Outcome[T]]:
        """Take the outcomes that wait to be taken; none if there are none now."""
        return self._receive.receive_nowait()

    def __repr__(self) -> str:
        return f"<OutcomeStream: {len(self._receive)} at hand>"


@final
class Engine:
    """Sends requests through one gate and one transport, in the event loop in which it was made.

    Args:
        gate: admits requests.
        transport: carries them.
        retry: how they are tried again; None for never.
        login: what to say of the login when the server refuses it.
    """

    def __init__(
        self, gate: Limiter, transport: Transport, retry: RetryPolicy | None = None, login: str = ""
    ) -> None:
        self._login = login
        self.limiter = gate
        self.transport = transport
        self.retrier: Retrier = Retrier(retry, gate)
        self._loop = current_token()
        # anyio.current_time looks for the event loop each time, and that takes most of its time.
        self._now = self._loop.backend_class.current_time
        self._closed = False
        self._in_flight: set[RequestTimeout] = set()
        self._idle = anyio.Event()

    async def aclose(self) -> None:
        """Give up what is on its way, and refuse every later use.

        What is given up becomes a failure of its call, which some other task may wait for.
        """
        self._closed = True
        self.retrier.close()
        self.limiter.resume()
        for courier in self._in_flight:
            courier.call_back()
        with anyio.move_on_after(_CLOSE_TIMEOUT, shield=True):
            while self._in_flight:
                await self._idle.wait()

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
                "loop with anyio.from_thread.run; the outcomes of a plain Session are retried by "
                "its own retry_failed(outcomes)"
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

    async def collect(
        self,
        operation: Operation[T],
        keys: Keys,
        progress: ProgressCallback | None = None,
        word: str = OK,
    ) -> Outcomes[T]:
        """Run *operation* over *keys* and gather what became of them.

        Args:
            operation: what to do with each key.
            keys: the keys; one that comes twice is asked for once.
            progress: is told after each outcome.
            word: what it is told of a success.

        Returns:
            One outcome per distinct key, in the order in which the keys came.

        Raises:
            Exception: only what the caller's own iterable or *progress* raised.
        """
        self.check()
        check_progress(progress)
        await checkpoint()
        again = partial(self.collect, operation)
        if isinstance(operation.parse, IncrementalParser) or progress is not None:
            into = Collector[T]()
            sink = with_progress(into, progress, operation.name, length_of(keys), word)
            await self.fan_out(partial(self.attempt, operation), keys, sink)
            return Outcomes(operation.name, into.whole, again=again)

        unread_yet = DeferredParsing(operation)
        await self.fan_out(partial(self.attempt, without_parsing(operation)), keys, unread_yet)
        return Outcomes(operation.name, unread_yet.whole, again=again)

    @asynccontextmanager
    async def stream(self, operation: Operation[T], keys: Keys) -> AsyncGenerator[OutcomeStream[T]]:
        """Run *operation* over *keys* and hand on each outcome once it is known, in no set order.

        Leaving the block early cancels what is on its way.
        """
        self.check()
        await checkpoint()

        async def produce(deliver: SendItem[Outcome[T]]) -> None:
            await self.fan_out(partial(self.attempt, operation), keys, ToChannel(deliver))

        async with open_channel(produce) as receive:
            yield OutcomeStream(receive)

    async def fan_out(
        self,
        perform: PerformItem[T],
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
        strays: list[BaseException] = []

        async def work(source: AsyncIterator[Any], courier: RequestTimeout) -> None:
            try:
                await self._work(perform, source, sink, courier)
            except anyio.get_cancelled_exc_class() as stray:
                strays.append(stray)
                raise

        async with open_source(keys) as source, open_task_group() as group:
            count = self._count_workers(keys, workers)
            if count == 1:
                group.start_soon(work, source, OwnTimeout())
            else:
                watchdog = TimeoutMonitor()
                for _ in range(count):
                    group.start_soon(_watched, work, source, watchdog.new_timeout())
                await watchdog.run()

        # On asyncio a task that is just about to wake is cancelled later than its children; without
        # any left to wait for, it would go on as if they had done all.
        await checkpoint_if_cancelled()
        if strays:
            # Nobody cancelled this: what the transport or the caller's function awaits was
            # cancelled, and a worker ended by that as if it had done its part.
            raise strays[0]

    def _count_workers(self, keys: Keys, most: int | None) -> int:
        limit = self.limiter.ceiling
        length = length_of(keys)
        return min(limit, most or limit, limit if length is None else length)

    async def _work(
        self,
        perform: PerformItem[T],
        source: AsyncIterator[Any],
        sink: Sink[T],
        courier: RequestTimeout,
    ) -> None:
        async for item in source:
            target = to_target(item)
            if sink.claim(_key(target)):
                await sink.deliver(await perform(target, courier))
            else:
                # Without this a million repeated ids would hold the event loop until the last.
                await checkpoint()

    async def attempt(
        self, operation: Operation[T], target: Any, courier: RequestTimeout | None = None
    ) -> Outcome[T]:
        """Wait for a turn, send one request, and say what became of it; never raises an error.

        Args:
            operation: what to do.
            target: with which session.
            courier: carries the request; by default one for this request only.
        """
        courier = courier or OwnTimeout()
        self.retrier.budget.first += 1
        started = now = self._now()
        if not self.limiter.acquire_nowait(courier):
            try:
                await self.limiter.acquire(courier)
            except Paused as paused:
                return paused.to_failure(_key(target), self._now() - started)

            now = self._now()
        try:
            outcome = await self._exchange(operation, target, courier, started, now)
        finally:
            self.limiter.release(courier)

        if isinstance(outcome, Failure) and operation.idempotent:
            again = partial(self.exchange, operation, target)
            return await self.retrier.run(outcome, started, again)

        return outcome

    async def exchange(self, operation: Operation[T], target: Any) -> Outcome[T]:
        """Send one request, for a caller who has a place at the gate; never raises an error."""
        now = self._now()
        return await self._exchange(operation, target, OwnTimeout(), now, now)

    def _add_login(self, failure: Failure) -> Failure:
        """Say which login the server refused, if it did."""
        if not self._login or failure.kind is not FailureKind.NOT_AUTHENTICATED:
            return failure

        return evolve(failure, message=f"{failure.message}; {self._login}")

    def _record_failure(self, operation: Operation[Any], failure: Failure, sent: float) -> None:
        """Give way to a server that has too much to do."""
        if operation.server_wide and is_overload(failure.kind):
            self.limiter.record_overload(sent)
            if failure.retry_after:
                seconds = min(failure.retry_after, MAX_PAUSE)
                self.limiter.pause(self._now() + seconds, failure)

    async def _exchange(
        self,
        operation: Operation[T],
        target: Any,
        courier: RequestTimeout,
        started: float,
        now: float,
    ) -> Outcome[T]:
        key = _key(target)
        try:
            request = operation.build(target)
            response = await self._send(request, operation.timeout, courier, now)
            outcome = await parse_response(key, operation, response, self._now() - started)
        except InvalidRequest as error:
            # Without this a million bad ids would hold the event loop until the last.
            await checkpoint()
            failure = Failure(key, FailureKind.INVALID, str(error), attempts=0)
        except TransportError as error:
            failure = Failure(key, error.kind, error.message, sent=error.sent, final=error.final)
        except Exception as error:  # noqa: BLE001  # every input has an outcome, whatever went wrong
            failure = Failure(key, FailureKind.INTERNAL, describe_bug(error), sent=True)
        else:
            if isinstance(outcome, Failure):
                self._record_failure(operation, outcome, now)
                return self._add_login(outcome)
            if self.limiter.adaptive is not None:
                self.limiter.record_success()
            return outcome

        self._record_failure(operation, failure, now)
        return evolve(failure, elapsed=self._now() - started)

    async def _send(
        self, request: Request, seconds: float, courier: RequestTimeout, now: float
    ) -> Response:
        if self._closed:
            message = "the session was closed before this was sent"
            raise TransportError(FailureKind.CONNECT_FAILED, message, sent=False)

        self._in_flight.add(courier)
        try:
            response = await courier.carry(self.transport.send, request, now + seconds)
        finally:
            self._in_flight.discard(courier)
            if self._closed and not self._in_flight:
                self._idle.set()

        if response is not None:
            return response

        if self._closed:
            message = "the session was closed while this was on its way"
            raise TransportError(FailureKind.CONNECTION_LOST, message, sent=True)

        raise TransportError(
            FailureKind.TIMED_OUT, f"no whole reply within {seconds:g} seconds", sent=True
        )


async def _watched(
    work: Callable[[AsyncIterator[Any], RequestTimeout], Awaitable[None]],
    source: AsyncIterator[Any],
    courier: SharedTimeout,
) -> None:
    with courier:
        await work(source, courier)


def _key(target: Any) -> str:
    """Name an outcome, also of what is no id at all and will be refused."""
    return target if isinstance(target, str) else f"<{format_value(target)}>"
