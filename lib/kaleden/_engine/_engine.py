"""The engine: one request with its retries, and the fan-out over many sessions.

`Engine.attempt` is the only way to the transport: it waits for a slot of the limiter, builds the
request, sends it, classifies and parses the response. It never raises an error: every request has
an `Outcome`. `Engine.collect` and `Engine.stream` let a few workers take keys from one iterator, so
that a key that waits costs no task.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
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
from kaleden._engine._operations import Operation, defer_parsing, parse_response, to_failure
from kaleden._engine._retry import Retrier
from kaleden._engine._targets import Keys, key_of, length_of, open_source, to_target
from kaleden._engine._tasks import open_task_group
from kaleden._engine._timeouts import OwnTimeout, RequestTimeout, SharedTimeout, TimeoutMonitor
from kaleden._errors import FailureKind, SessionNotOpen, WrongEventLoop
from kaleden._http import Transport, TransportError
from kaleden._results._batch import Failure, Outcome, Outcomes
from kaleden._results._progress import OK, ProgressCallback, check_progress
from kaleden._wire import IncrementalParser, Request, Response

T = TypeVar("T")

_CLOSE_TIMEOUT: Final = 5.0
"""Seconds within which cancelled requests must end, connections included."""

PerformItem: TypeAlias = Callable[[Any, RequestTimeout], Awaitable[Outcome[T]]]


@final
class OutcomeStream(Generic[T]):
    """The outcomes of a stream, in the order in which they complete.

    ``async for outcome in results`` receives them. Nothing is buffered: a worker waits until its
    outcome is received before it sends its next request.
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
        """Return the outcomes that wait to be received, without waiting; an empty list if none."""
        return self._receive.receive_nowait()

    def __repr__(self) -> str:
        return f"<OutcomeStream: {len(self._receive)} waiting>"


class _Displaced(Exception):
    """A read was cancelled so that a clean-up receives its slot."""


@final
class Engine:
    """Sends requests through one limiter and one transport, in the event loop it was made in.

    Args:
        limiter: bounds the requests in flight.
        transport: sends requests and receives responses.
        retry: the retry policy; None for no retries.
        login: a description of the login, added to failures when the server refuses it.

    Attributes:
        has_succeeded: whether any request has succeeded.
    """

    def __init__(
        self,
        limiter: Limiter,
        transport: Transport,
        retry: RetryPolicy | None = None,
        login: str = "",
    ) -> None:
        self._login = login
        self.limiter = limiter
        self.transport = transport
        self.retrier: Retrier = Retrier(retry, limiter)
        self.has_succeeded: bool = False
        self._loop = current_token()
        # anyio.current_time looks up the event loop each time, which takes most of its time.
        self._now = self._loop.backend_class.current_time
        self._closed = False
        # The requests in flight, the oldest first: whether each is a read that can be displaced.
        self._in_flight: dict[RequestTimeout, bool] = {}
        self._displaced: set[RequestTimeout] = set()
        self._idle = anyio.Event()

    async def aclose(self) -> None:
        """Cancel the requests in flight, and refuse every later use.

        Each cancelled request becomes a failure of its call, which another task may wait for.
        """
        self._closed = True
        self.retrier.close()
        self.limiter.resume()
        for timeout in self._in_flight:
            timeout.cancel()
        with anyio.move_on_after(_CLOSE_TIMEOUT, shield=True):
            while self._in_flight:
                await self._idle.wait()

    def check(self) -> None:
        """Check that requests can be sent from here.

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

    # --- calls: many keys, or none ---------------------------------------------------------------

    async def request(self, operation: Operation[T]) -> T:
        """Send the one request of an operation that does not concern a particular session.

        Raises:
            RequestError: the request failed.
            InvalidRequest: the request was refused before it was sent.
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
        success_label: str = OK,
    ) -> Outcomes[T]:
        """Perform *operation* on each of *keys*, and collect the outcomes.

        Args:
            operation: the operation.
            keys: the keys; one that comes twice is requested once.
            progress: is called after each outcome.
            success_label: the label under which *progress* counts a success.

        Returns:
            One outcome for each distinct key, in the order of the keys.

        Raises:
            Exception: only what the caller's own iterable or *progress* raised.
        """
        self.check()
        check_progress(progress)
        await checkpoint()
        again = partial(self.collect, operation)
        can_defer = operation.can_defer and not isinstance(operation.parse, IncrementalParser)
        if progress is not None or not can_defer:
            collector = Collector[T]()
            sink = with_progress(
                collector, progress, operation.name, length_of(keys), success_label
            )
            await self.fan_out(partial(self.perform, operation), keys, sink)
            return Outcomes(operation.name, collector.results, again=again)

        deferred = DeferredParsing(operation)
        await self.fan_out(partial(self.perform, defer_parsing(operation)), keys, deferred)
        return Outcomes(operation.name, deferred.results, again=again)

    @asynccontextmanager
    async def stream(self, operation: Operation[T], keys: Keys) -> AsyncGenerator[OutcomeStream[T]]:
        """Perform *operation* on each of *keys*, and yield the outcomes as they complete.

        Leaving the block early cancels the requests in flight.
        """
        self.check()
        await checkpoint()

        async def produce(send: SendItem[Outcome[T]]) -> None:
            await self.fan_out(partial(self.perform, operation), keys, ToChannel(send))

        async with open_channel(produce) as receive:
            yield OutcomeStream(receive)

    async def fan_out(
        self, perform: PerformItem[T], keys: Keys, sink: Sink[T], workers: int | None = None
    ) -> None:
        """Let workers take items from *keys*, perform each, and deliver its outcome to *sink*.

        Args:
            perform: returns the outcome of one item; never raises an error.
            keys: the items; an item that is a `Failure` is its own outcome.
            sink: receives the outcomes.
            workers: the number of workers, at most; None for the limit of the client.
        """
        cancellations: list[BaseException] = []

        async def work(source: AsyncIterator[Any], timer: RequestTimeout) -> None:
            try:
                await self._work(perform, source, sink, timer)
            except anyio.get_cancelled_exc_class() as cancellation:
                cancellations.append(cancellation)
                raise

        async with open_source(keys) as source, open_task_group() as group:
            count = self._count_workers(keys, workers)
            if count == 1:
                group.start_soon(work, source, OwnTimeout())
            else:
                monitor = TimeoutMonitor()
                for _ in range(count):
                    group.start_soon(_work_within, work, source, monitor.new_timeout())
                await monitor.run()

        # asyncio cancels a task that is about to wake later than its children. Without children
        # left to wait for, the task would go on as if all of them had completed.
        await checkpoint_if_cancelled()
        if cancellations:
            # This task was not cancelled: something that the transport or the caller's function
            # awaits was, and a worker ended by that as if it had completed.
            raise cancellations[0]

    def _count_workers(self, keys: Keys, most: int | None) -> int:
        limit = self.limiter.ceiling
        length = length_of(keys)
        return min(limit, most or limit, limit if length is None else length)

    async def _work(
        self,
        perform: PerformItem[T],
        source: AsyncIterator[Any],
        sink: Sink[T],
        timer: RequestTimeout,
    ) -> None:
        async for item in source:
            target = to_target(item)
            if sink.claim(key_of(target)):
                is_failure = isinstance(target, Failure)
                await sink.deliver(target if is_failure else await perform(target, timer))
            else:
                # Without this a million repeated ids would block the event loop.
                await checkpoint()

    # --- one request -----------------------------------------------------------------------------

    async def perform(
        self,
        operation: Operation[T],
        target: Any,
        timer: RequestTimeout | None = None,
        deadline: float | None = None,
    ) -> Outcome[T]:
        """Send one request, and retry it if it is idempotent; never raises an error.

        Args:
            operation: the operation.
            target: the session, by its id.
            timer: bounds the first attempt; by default one for this request only.
            deadline: a pause that ends after it is a failure; by default that of the calling task.
        """
        self.retrier.budget.first += 1
        outcome = await self.attempt(operation, target, timer or OwnTimeout(), deadline)
        if isinstance(outcome, Failure) and operation.idempotent:
            again = partial(self.attempt, operation, target, deadline=deadline)
            outcome = await self.retrier.retry(outcome, again)

        return outcome if operation.check is None else await operation.check(outcome)

    async def attempt(
        self,
        operation: Operation[T],
        target: Any,
        timer: RequestTimeout,
        deadline: float | None = None,
    ) -> Outcome[T]:
        """Wait for a slot of the limiter, and send one request; never raises an error.

        Args:
            operation: the operation.
            target: the session, by its id.
            timer: bounds the request, and holds the slot.
            deadline: a pause that ends after it is a failure; by default that of the calling task.
        """
        while True:
            outcome = await self._attempt(operation, target, timer, deadline)
            if outcome is not None:
                return outcome

    async def _attempt(
        self,
        operation: Operation[T],
        target: Any,
        timer: RequestTimeout,
        deadline: float | None,
    ) -> Outcome[T] | None:
        """Make one attempt; return None if it was cancelled in favour of a clean-up."""
        key = key_of(target)
        limiter = self.limiter
        started = now = self._now()
        if not limiter.acquire_nowait(timer):
            try:
                make_room = self._displace_read if operation.first else None
                await limiter.acquire(timer, deadline, make_room=make_room)
            except Paused as paused:
                return paused.to_failure(key, self._now() - started)

            now = self._now()
        try:
            request = operation.build(target)
            if operation.before_send is not None:
                await operation.before_send()
                now = self._now()
            response = await self._send(request, operation, timer, now)
            outcome = await parse_response(key, operation, response, self._now() - started)
        except _Displaced:
            return None
        except Exception as error:  # noqa: BLE001  # every input has an outcome
            failure = to_failure(key, error, self._now() - started)
            self._record_failure(operation, failure, now)
            if not failure.attempts:
                # Without this a million invalid ids would block the event loop.
                await checkpoint()
            return failure
        else:
            if isinstance(outcome, Failure):
                self._record_failure(operation, outcome, now)
                return self._add_login(outcome)

            self.has_succeeded = True
            if limiter.adaptive is not None:
                limiter.record_success()
            return outcome
        finally:
            limiter.release(timer)

    def _displace_read(self) -> None:
        """Cancel the oldest read, so that a clean-up receives its slot."""
        for timer, is_read in self._in_flight.items():
            if is_read and timer not in self._displaced:
                self._displaced.add(timer)
                timer.cancel()
                return

    def _add_login(self, failure: Failure) -> Failure:
        """Name the login in the message, if the server refused it."""
        if not self._login or failure.kind is not FailureKind.NOT_AUTHENTICATED:
            return failure

        return evolve(failure, message=f"{failure.message}; {self._login}")

    def _record_failure(self, operation: Operation[Any], failure: Failure, sent: float) -> None:
        """Lower the limit, or pause, if the server has too much to do."""
        if operation.server_wide and is_overload(failure.kind):
            self.limiter.record_overload(sent)
            if failure.retry_after:
                seconds = min(failure.retry_after, MAX_PAUSE)
                self.limiter.pause(self._now() + seconds, failure)

    async def _send(
        self, request: Request, operation: Operation[Any], timer: RequestTimeout, now: float
    ) -> Response:
        seconds = operation.timeout
        if self._closed:
            message = "the session was closed before this request was sent"
            raise TransportError(FailureKind.CONNECT_FAILED, message, sent=False)

        self._in_flight[timer] = request.method == "GET" and not operation.first
        try:
            response = await timer.run(self.transport.send, request, now + seconds)
        finally:
            del self._in_flight[timer]
            is_displaced = bool(self._displaced) and timer in self._displaced
            self._displaced.discard(timer)
            if self._closed and not self._in_flight:
                self._idle.set()

        if response is not None:
            size = request.max_body
            is_whole = size is None or not 200 <= response.status < 300
            return response if is_whole else _keep_last(response, size or 0)

        if self._closed:
            message = "the session was closed while this request was in flight"
            raise TransportError(FailureKind.CONNECTION_LOST, message, sent=True)

        if is_displaced:
            raise _Displaced

        raise TransportError(
            FailureKind.TIMED_OUT, f"no complete response within {seconds:g} seconds", sent=True
        )


def _keep_last(response: Response, size: int) -> Response:
    """Cut a body of which a transport of the caller has kept more than was requested."""
    excess = len(response.body) - size
    if excess <= 0:
        return response

    return evolve(response, body=response.body[excess:], omitted=response.omitted + excess)


async def _work_within(
    work: Callable[[AsyncIterator[Any], RequestTimeout], Awaitable[None]],
    source: AsyncIterator[Any],
    timer: SharedTimeout,
) -> None:
    with timer:
        await work(source, timer)
