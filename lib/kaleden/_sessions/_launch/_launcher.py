"""The launch protocol: at most one session for each specification, and none lost.

The server chooses the ids, allows equal names, and cannot recognise a repeated request; a create
takes seconds to minutes, and continues when its client is gone. So a create is never sent twice.
Its request runs shielded in a task of its own, so that its response is read even if the caller is
cancelled. Where no usable response comes, the session is looked for in lists that began after the
request, until `Limits.settle` seconds have passed.

The caller passes a `LaunchObserver`, which is notified of every session before the caller is.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Final, Protocol, final

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup
from attrs import define, evolve, field, frozen

from kaleden._engine import _operations
from kaleden._engine._collectors import Collector, with_progress
from kaleden._engine._config import Backoff, Limits
from kaleden._engine._engine import Engine
from kaleden._engine._limiter import Limiter
from kaleden._engine._operations import NotSent, to_failure
from kaleden._engine._timeouts import OwnTimeout, RequestTimeout
from kaleden._errors import FailureKind, RequestError, SessionNotOpen
from kaleden._results._batch import Failure, Outcome, Outcomes, Success
from kaleden._results._outcome import contradict_success
from kaleden._results._progress import ProgressCallback, check_progress
from kaleden._sessions._launch._launch_request import LaunchRequest
from kaleden._sessions._monitor._history import Snapshot
from kaleden._sessions._monitor._lister import SharedList
from kaleden._sessions._monitor._outage import FAILED_INTERVALS, ConsecutiveFailures, Patience
from kaleden._wire import Headers, SessionInfo

_MOST_IDS: Final = 1000
"""Session ids that are remembered. A proxy that repeats a response does so soon."""

_SEARCH_INTERVALS: Final = (0.25, 4.0)
"""Seconds between two lists that look for a session: the first interval and the longest."""

# No response, or one of a proxy that got none: the server may still be at work.
_NO_SERVER_RESPONSE: Final = (None, 502, 504)


@final
class SeenSessionIds:
    """The session ids in recent create responses of one client.

    Attributes:
        names: the names of their launches, by id.
    """

    def __init__(self, most: int = _MOST_IDS) -> None:
        self._most = most
        self.names: dict[str, str] = {}

    def check(
        self, outcome: Outcome[str], name: str, before: Mapping[str, SessionInfo]
    ) -> Outcome[str]:
        """Return a failure for a response that belongs to another create.

        Args:
            outcome: the id in the response.
            name: the name of the launch.
            before: the sessions that were listed before the create was sent.
        """
        if not isinstance(outcome, Success):
            return outcome

        session, message = outcome.value, None
        if session in before:
            message = f"session {session}, called {before[session].name}, which existed before"
        elif session in self.names:
            message = f"session {session}, which another create made"
        if message is not None:
            message = f"the response names {message}"
            return contradict_success(outcome, FailureKind.PROTOCOL, message)

        self.add(outcome.value, name)
        return outcome

    def add(self, session: str, name: str) -> None:
        """Remember the session that a create made."""
        self.names[session] = name
        if len(self.names) > self._most:
            del self.names[next(iter(self.names))]


class LaunchObserver(Protocol):
    """The owner of the sessions of a launch, which is notified of each step."""

    group: TaskGroup
    """The task group in which requests run; it outlives the launch."""

    in_flight: set[InFlightCreate]
    """The creates that have begun and not ended."""

    @property
    def is_open(self) -> bool:
        """Whether requests may still be sent."""
        ...

    async def before_send(self, request: LaunchRequest) -> None:
        """Record a create; nothing is sent before this returns.

        Raises:
            OSError: it cannot be recorded; nothing is sent.
        """
        ...

    async def on_created(self, request: LaunchRequest, session: str) -> None:
        """Take a session, before the caller of the launch receives its id."""
        ...

    async def on_unknown(self, request: LaunchRequest) -> None:
        """Remember a create that was sent and may have made a session."""
        ...

    async def on_not_created(self, request: LaunchRequest) -> None:
        """Forget a launch that certainly made no session."""
        ...


@final
@frozen
class _Search:
    """How to look for the sessions of a launch whose responses were lost.

    Attributes:
        before: the ids that were listed before the launch; None if they could not be listed, so
            that a new session cannot be distinguished.
        patience: for how long lists may fail; None for no longer than until they have settled.
    """

    before: Collection[str] | None
    patience: Patience | None

    def compute_limit(self, failure: Failure) -> float:
        """Return the seconds for which failures of lists like this one are tolerated."""
        return 0.0 if self.patience is None else self.patience.compute_limit(failure)


@final
class Launcher:
    """Launches sessions for one client, a few at a time.

    Args:
        engine: sends the requests.
        sessions: lists the sessions.
        limits: the limits of the client.
        headers: sent with each create.
    """

    def __init__(
        self,
        engine: Engine,
        sessions: SharedList,
        limits: Limits,
        headers: Headers = (),
    ) -> None:
        self._sessions = sessions
        self.engine = engine
        self.limits = limits
        self.headers = headers
        self.limiter: Limiter = Limiter(limits.create_concurrency)
        self.seen_ids: SeenSessionIds = SeenSessionIds()

    async def launch(
        self,
        requests: Sequence[LaunchRequest],
        observer: LaunchObserver,
        progress: ProgressCallback | None = None,
        patience: Patience | None = None,
    ) -> Outcomes[str]:
        """Launch each of *requests* once; the values are the ids of the new sessions.

        Args:
            requests: the launches.
            observer: owns the sessions.
            progress: the callback of the caller.
            patience: for how long lists may fail while a session is looked for; None for no longer
                than until the lists have settled.
        """
        self.engine.check()
        check_progress(progress)
        search = _Search(await self._list_ids_before(requests), patience)
        by_key = {request.key: request for request in requests}
        collector = Collector[str]()

        async def perform(key: str, _: RequestTimeout) -> Outcome[str]:
            return await self._perform(by_key[key], observer, search)

        sink = with_progress(collector, progress, "create", len(by_key))
        await self.engine.fan_out(perform, by_key, sink, self.limits.create_concurrency)
        return Outcomes("create", collector.completed)

    async def _list_ids_before(self, requests: Sequence[LaunchRequest]) -> Collection[str] | None:
        """List the sessions that exist before a launch under the user's own names.

        Returns:
            Their ids; None if they could not be listed: then a session of such a name could be an
            older one.
        """
        await anyio.lowlevel.checkpoint()
        if all(request.token for request in requests):
            return ()

        try:
            return (await self._sessions.since_with_retry(anyio.current_time())).sessions.keys()
        except RequestError:
            return None

    async def _perform(
        self, request: LaunchRequest, observer: LaunchObserver, search: _Search
    ) -> Outcome[str]:
        started = anyio.current_time()
        outcome = await self._send(request, observer)
        attempts = outcome.attempts
        if isinstance(outcome, Failure) and may_have_created(outcome):
            outcome = await self._reconcile(request, observer, outcome, search)

        return evolve(outcome, attempts=attempts, elapsed=anyio.current_time() - started)

    async def _send(self, request: LaunchRequest, observer: LaunchObserver) -> Outcome[str]:
        """Send the create in the observer's task group, where it continues if this is cancelled."""
        if not observer.is_open:
            return to_failure(request.key, _build_not_sent(), 0.0)

        create = InFlightCreate(self, request, observer, anyio.current_effective_deadline())
        observer.in_flight.add(create)
        observer.group.start_soon(create.run)
        try:
            await create.done.wait()
        except anyio.get_cancelled_exc_class():
            create.cancel_after(self.limits.create_grace)
            raise

        if create.outcome is not None:
            return create.outcome

        if request.sent is None:
            return to_failure(request.key, _build_not_sent(), 0.0)

        message = "the scope ended before a response arrived; its clean-up looks for the session"
        return Failure(request.key, FailureKind.UNKNOWN_EFFECT, message, sent=True)

    async def _reconcile(
        self,
        request: LaunchRequest,
        observer: LaunchObserver,
        failure: Failure,
        search: _Search,
    ) -> Outcome[str]:
        """Look for the session of an unconfirmed create."""
        found = await self._look_for(request, search)
        if found is not None:
            self.seen_ids.add(found.id, request.name)
            self.record_created(found.id, request)
            await observer.on_created(request, found.id)
            return Success(request.key, found.id)

        # Also after a response of the server: its lists may lag by more than *settle* seconds.
        message = f"a session named {request.name} may have been created: {failure.message}"
        return evolve(failure, kind=FailureKind.UNKNOWN_EFFECT, message=message)

    async def _look_for(self, request: LaunchRequest, search: _Search) -> SessionInfo | None:
        """List sessions until the new one appears, or the time to settle is over.

        The last list begins after that time.
        """
        if search.before is None:
            return None

        settled = anyio.current_time() + self.limits.settle
        backoff, failed = Backoff(*_SEARCH_INTERVALS), Backoff(*FAILED_INTERVALS)
        failures = ConsecutiveFailures()
        while True:
            now = anyio.current_time()
            try:
                snapshot = await self._sessions.since(now)
            except SessionNotOpen:
                return None
            except RequestError as error:
                failures.record_failure(error.failure, search.compute_limit(error.failure))
                if now >= settled and failures.is_final:
                    return None

                end = max(settled, failures.ends_at)
                await anyio.sleep_until(min(anyio.current_time() + failed.next(), end))
                continue

            failures.record_success()
            failed.reset()
            found = self._find_new(request, search.before, snapshot)
            if found is not None or now >= settled:
                return found

            await anyio.sleep(min(backoff.next(), max(0.0, settled - anyio.current_time())))

    def _find_new(
        self, request: LaunchRequest, before: Collection[str], snapshot: Snapshot
    ) -> SessionInfo | None:
        named = [info for info in snapshot.sessions.values() if info.name == request.name]
        new = [info for info in named if info.id not in before and not self._is_known(info)]
        # Two new sessions of one name: another client launches it too, and they cannot be
        # distinguished.
        return new[0] if len(new) == 1 else None

    def record_created(self, session: str, request: LaunchRequest | None = None) -> None:
        """Record that a session exists, although lists may not show it yet.

        Args:
            session: its id.
            request: the launch that made it; None for a session that was launched elsewhere.
        """
        history = self._sessions.history
        history.record_created(session, anyio.current_time())
        if request is not None and request.token:
            history.record_name(session, request.name)

    @property
    def listed(self) -> Mapping[str, SessionInfo]:
        """The sessions in the last list, by id."""
        return {} if self._sessions.last is None else self._sessions.last.sessions

    def _is_known(self, info: SessionInfo) -> bool:
        """Return whether another create of the same name received the id of this session."""
        return self.seen_ids.names.get(info.id) == info.name


@final
@define(eq=False)
class InFlightCreate:
    """A create, with its retries, that continues when its caller is cancelled.

    Attributes:
        launcher: sends it.
        request: the launch.
        observer: owns the session.
        deadline: the deadline of the caller; no back-off and no pause is waited for beyond it.
        done: set once the observer has been notified of the outcome.
        outcome: the outcome; None if nothing was sent, or no response came in time.
    """

    launcher: Launcher
    request: LaunchRequest
    observer: LaunchObserver
    deadline: float = math.inf
    done: anyio.Event = field(factory=anyio.Event)
    outcome: Outcome[str] | None = None
    _before: Mapping[str, SessionInfo] = field(factory=dict[str, SessionInfo])
    _scope: anyio.CancelScope = field(factory=lambda: anyio.CancelScope(shield=True))
    _has_begun: bool = False
    _is_cancelled: bool = False
    _is_waiting: bool = True

    def cancel_after(self, grace: float) -> None:
        """Cancel it at once while it waits; else give the response *grace* seconds more."""
        self._is_cancelled = True
        if not self._has_begun:
            # asyncio never starts a task that is cancelled natively before its first step.
            self._finish()
        elif self._is_waiting:
            self._scope.cancel()
        self._scope.deadline = min(self._scope.deadline, anyio.current_time() + grace)

    @property
    def _is_stopped(self) -> bool:
        return self._is_cancelled or not self.observer.is_open

    async def run(self) -> None:
        """Send it, and notify the observer before the caller."""
        self._has_begun = True
        self._set_waiting()
        try:
            # Only asyncio's native cancellation of all tasks, as at the end of asyncio.run, passes
            # a shield. The server may make the session nevertheless.
            with suppress(anyio.get_cancelled_exc_class()), self._scope:
                outcome = await self._perform()
                self.outcome = self.launcher.seen_ids.check(
                    outcome, self.request.name, self._before
                )
        finally:
            try:
                # Recording takes the time that it needs, also after a KeyboardInterrupt here.
                with anyio.CancelScope(shield=True):
                    await self._notify()
            finally:
                self._finish()

    def _set_waiting(self) -> None:
        """Let a cancellation of the caller end it, since nothing is sent."""
        self.request.sent = None
        self._is_waiting = True
        if self._is_stopped:
            self._scope.cancel()

    def _finish(self) -> None:
        self.observer.in_flight.discard(self)
        self.done.set()

    async def _perform(self) -> Outcome[str]:
        launcher = self.launcher
        operation = _operations.create(
            launcher.limits, self.request.launch, launcher.headers, self._before_send
        )

        async def attempt(timer: OwnTimeout) -> Outcome[str]:
            await launcher.limiter.acquire(timer)
            try:
                outcome = await launcher.engine.attempt(
                    operation, self.request.key, timer, self.deadline
                )
            finally:
                launcher.limiter.release(timer)
            if isinstance(outcome, Failure) and not outcome.sent:
                self._set_waiting()
            return outcome

        retrier = launcher.engine.retrier
        retrier.budget.first += 1
        outcome = await attempt(OwnTimeout())
        if isinstance(outcome, Failure):
            return await retrier.retry(outcome, attempt, unsent_before=self.deadline)

        return outcome

    async def _before_send(self) -> None:
        if self._is_stopped:
            raise _build_not_sent()

        # From here on a cancellation of the caller does not end it at once.
        self._is_waiting = False
        try:
            await self.observer.before_send(self.request)
        except Exception as error:
            message = f"nothing was sent, because it could not be recorded first: {error}"
            raise NotSent(FailureKind.INTERNAL, message) from error

        if self._is_stopped:
            raise _build_not_sent()

        self._before = self.launcher.listed
        self.request.sent = anyio.current_time()

    async def _notify(self) -> None:
        request, outcome = self.request, self.outcome
        request.ended = anyio.current_time()
        if isinstance(outcome, Success):
            self.launcher.record_created(outcome.value, request)
            await self.observer.on_created(request, outcome.value)
        elif request.sent is None or (outcome and not may_have_created(outcome)):
            await self.observer.on_not_created(request)
        else:
            request.answered = outcome is not None and outcome.status not in _NO_SERVER_RESPONSE
            await self.observer.on_unknown(request)


def _build_not_sent() -> NotSent:
    return NotSent(FailureKind.CONNECT_FAILED, "the scope ended before this was sent")


def may_have_created(failure: Failure) -> bool:
    """Return whether the server may have made the session; a refusal (3xx, 4xx) rules it out."""
    refused = failure.status is not None and 300 <= failure.status < 500
    return failure.sent and failure.kind.may_have_taken_effect and not refused
