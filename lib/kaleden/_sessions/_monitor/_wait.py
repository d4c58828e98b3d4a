"""Waits for sessions.

One list request per poll serves all waits of a client, whatever the number of sessions.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias, TypeGuard, final

import anyio
from anyio.lowlevel import checkpoint
from attrs import evolve, frozen

from kaleden._engine import _operations
from kaleden._engine._channel import SendItem, open_channel
from kaleden._engine._collectors import Collector
from kaleden._engine._config import Limits, check_number
from kaleden._engine._engine import Engine, OutcomeStream
from kaleden._engine._targets import Keys, key_of
from kaleden._engine._tasks import map_with_checkpoints, open_task_group
from kaleden._errors import FailureKind, InvalidRequest
from kaleden._results._batch import Failure, Outcome, Outcomes, Success
from kaleden._results._progress import (
    ProgressCallback,
    ProgressUpdate,
    check_progress,
    check_synchronous,
)
from kaleden._sessions._monitor._history import SessionState, Snapshot
from kaleden._sessions._monitor._lister import SharedList
from kaleden._sessions._monitor._outage import MAY_PASS, FailedPoll, Patience
from kaleden._sessions._monitor._poller import Poller, PollInterval
from kaleden._wire import (
    TERMINAL_STATUSES,
    Event,
    SessionInfo,
    SessionStatus,
    check_id,
    check_status,
)

Until: TypeAlias = str | Iterable[str] | Callable[[SessionInfo], bool]
"""The condition of a wait: a status, one of several statuses, or a function of the session."""

Item: TypeAlias = str | SessionInfo | Failure
"""A requested session, or the failure of an invalid id or of a launch."""

MAX_EVENTS: Final = 3
EVENT_LENGTH: Final = 150  # characters; keeps a failure below a kilobyte


@final
@frozen
class WaitCondition:
    """The condition of a wait.

    Attributes:
        reached: returns whether a session meets the condition.
        goal: a description of the condition, for messages.
        pending_timeout: seconds after which a session that was not started yet has failed to start.
        progress: called with the number of sessions in each status, after each poll that shows a
            change.
    """

    reached: Callable[[SessionInfo], bool]
    goal: str
    pending_timeout: float
    progress: ProgressCallback | None


@final
class Waiter:
    """Waits for sessions of one client, with one `Poller` for all waits.

    Args:
        sessions: lists the sessions.
        apps: lists the applications of desktops, by their ``app_id``.
        engine: sends other requests.
        limits: the time-outs of requests.
        patience: for how long an outage is tolerated.
        random_source: the source of the jitter of the intervals.
    """

    def __init__(
        self,
        sessions: SharedList,
        apps: SharedList,
        engine: Engine,
        limits: Limits,
        patience: Patience,
        random_source: random.Random | None = None,
    ) -> None:
        self.sessions: Poller = Poller(sessions, PollInterval(random_source), patience)
        self.apps: Poller = Poller(apps, PollInterval(random_source), patience)
        self._engine = engine
        self._limits = limits

    async def wait(
        self,
        ids: Keys,
        until: Until = TERMINAL_STATUSES,
        pending_timeout: float | None = None,
        progress: ProgressCallback | None = None,
    ) -> Outcomes[SessionInfo]:
        """Wait until each session meets the condition, or cannot meet it any more.

        See `AsyncSession.wait` for the arguments.
        """
        condition = read_condition(until, pending_timeout, progress)
        self._engine.check()
        return await self._collect(await read_items(ids), condition)

    @asynccontextmanager
    async def stream(
        self,
        ids: Keys,
        until: Until = TERMINAL_STATUSES,
        pending_timeout: float | None = None,
        progress: ProgressCallback | None = None,
    ) -> AsyncGenerator[OutcomeStream[SessionInfo]]:
        """Wait as `wait` does, and deliver each outcome as soon as it is known."""
        condition = read_condition(until, pending_timeout, progress)
        self._engine.check()
        await checkpoint()
        items = await read_items(ids)
        async with open_channel((await self._start_run(items, condition)).run) as receive:
            yield OutcomeStream(receive)

    async def _collect(
        self, items: dict[str, Item], condition: WaitCondition
    ) -> Outcomes[SessionInfo]:
        self._engine.check()
        await checkpoint()
        collected = Collector[SessionInfo]()
        for key in items:
            collected.claim(key)

        wait = await self._start_run(items, condition)
        await wait.run(collected.deliver)
        return Outcomes(
            "wait",
            collected.completed,
            again=lambda keys: self._collect({key: items[key] for key in keys}, condition),
        )

    async def _start_run(self, items: dict[str, Item], condition: WaitCondition) -> _WaitRun:
        wait = _WaitRun(self._engine, self._limits, condition)

        def add(entry: tuple[str, Item]) -> None:
            key, item = entry
            if isinstance(item, Failure):
                wait.invalid.append(item)
            else:
                is_app = isinstance(item, SessionInfo) and item.app_id is not None
                poller = self.apps if is_app else self.sessions
                wait.targets.append(_Target(poller.new_state(key), poller))

        await map_with_checkpoints(add, items.items())
        return wait


@frozen(eq=False)
class _Target:
    """A session that is waited for, and the poller of its list."""

    state: SessionState
    poller: Poller


@final
class _WaitRun:
    """One call of `Waiter.wait` or `Waiter.stream`."""

    def __init__(self, engine: Engine, limits: Limits, condition: WaitCondition) -> None:
        self._engine = engine
        self._limits = limits
        self._condition = condition
        self._started = anyio.current_time()
        self._reported = ProgressUpdate()
        self._done = self._failed = 0
        self._outage: float | None = None
        self.targets: list[_Target] = []
        self.invalid: list[Failure] = []

    async def run(self, deliver: SendItem[Outcome[SessionInfo]]) -> None:
        """Deliver the outcome of every session, each as soon as it is known."""
        self._done = self._failed = len(self.invalid)
        for failure in self.invalid:
            await deliver(failure)

        async with open_task_group() as group:
            for poller in dict.fromkeys(target.poller for target in self.targets):
                waiting = {each.state.key: each for each in self.targets if each.poller is poller}
                group.start_soon(self._poll, poller, waiting, deliver)

    async def _poll(
        self, poller: Poller, waiting: dict[str, _Target], deliver: SendItem[Outcome[SessionInfo]]
    ) -> None:
        subscription = poller.subscribe()
        while waiting:
            polled = await subscription.next()
            self._outage = polled.seconds if isinstance(polled, FailedPoll) else None
            ended = await self._evaluate_all(polled, waiting)
            late = [outcome for outcome in ended if _is_late(outcome)]
            await self._conclude(
                [outcome for outcome in ended if not _is_late(outcome)], waiting, deliver
            )
            if late:
                failures = await self._check_late(late, waiting)
                await self._conclude(failures, waiting, deliver)

    async def _conclude(
        self,
        ended: Sequence[Outcome[SessionInfo]],
        waiting: dict[str, _Target],
        deliver: SendItem[Outcome[SessionInfo]],
    ) -> None:
        for outcome in ended:
            del waiting[outcome.key]
            self._done += 1
            self._failed += not outcome.ok

        self._report_progress()
        for outcome in ended:
            await deliver(outcome)

    async def _evaluate_all(
        self, polled: Snapshot | FailedPoll, waiting: dict[str, _Target]
    ) -> list[Outcome[SessionInfo]]:
        if isinstance(polled, FailedPoll) and not polled.is_final:
            return []

        elapsed = anyio.current_time() - self._started

        def evaluate(target: _Target) -> Outcome[SessionInfo] | None:
            if isinstance(polled, FailedPoll):
                return evolve(polled.to_failure(target.state.key), elapsed=elapsed)

            outcome = self._evaluate(target, polled)
            return None if outcome is None else evolve(outcome, elapsed=elapsed)

        outcomes = await map_with_checkpoints(evaluate, waiting.values())
        return [outcome for outcome in outcomes if outcome is not None]

    def _evaluate(self, target: _Target, snapshot: Snapshot) -> Outcome[SessionInfo] | None:
        """Return the outcome of one session; None while it may still meet the condition."""
        key, info = target.state.key, target.state.update(snapshot)
        if info is None:
            return target.state.to_failure(snapshot) if target.state.is_gone else None

        if target.state.history.find_other_name(key) is not None:
            message = f"the response to the create had the id {key} of session {info.name}"
            return Failure(key, FailureKind.PROTOCOL, message, sent=True)

        if self._condition.reached(info):
            return Success(key, info)

        if info.status.is_terminal:
            message = f"it ended as {info.status}, but the wait was for {self._condition.goal}"
            return Failure(key, FailureKind.WRONG_STATE, message, sent=True)

        waited = snapshot.began - self._started
        if not target.state.has_started and waited >= self._condition.pending_timeout:
            message = f"it is still {info.status} after {waited:.0f} seconds"
            return Failure(key, FailureKind.PENDING_TIMEOUT, message, sent=True)

        return None

    def _report_progress(self) -> None:
        if self._condition.progress is None:
            return

        seen = [target.state for target in self.targets if not target.state.is_gone]
        update = ProgressUpdate(
            Counter(str(state.status) for state in seen if state.status is not None),
            operation="wait",
            done=self._done,
            failed=self._failed,
            started=sum(target.state.has_started for target in self.targets),
            outage=self._outage,
            expected=len(self.targets) + len(self.invalid),
        )
        if vars(update) != vars(self._reported) or update != self._reported:
            self._reported = update
            self._condition.progress(update)

    async def _check_late(self, late: list[Failure], waiting: dict[str, _Target]) -> list[Failure]:
        """Add the last events of each session to its failure, unless they show that it started."""
        keys = [failure.key for failure in late]
        events = await self._engine.collect(_operations.events(self._limits), keys)
        failures: list[Failure] = []
        for failure in late:
            state, outcome = waiting[failure.key].state, events[failure.key]
            state.has_started = show_start(outcome, has_start_time=state.has_start_time)
            # With a start time it may have been started, so events that cannot be read are needed.
            is_unknown = state.has_start_time and may_be_read_later(outcome)
            if not (state.has_started or is_unknown):
                message = f"{failure.message}; {_format_events(outcome)}"
                failures.append(evolve(failure, message=message))
        return failures


def read_condition(
    until: Until, pending_timeout: float | None = None, progress: ProgressCallback | None = None
) -> WaitCondition:
    """Check the arguments of a wait, and return its condition.

    `AsyncSession.wait` describes them.

    Raises:
        InvalidRequest: an argument is invalid.
    """
    check_progress(progress)
    limit = math.inf if pending_timeout is None else pending_timeout
    check_number("pending_timeout", limit, "seconds", finite=False, error=InvalidRequest)
    if callable(until):
        check_synchronous(until)
        return WaitCondition(until, "the given function to return true", limit, progress)

    wanted = _read_statuses(until)
    return WaitCondition(
        lambda info: any(info.status.matches(status) for status in wanted),
        " or ".join(wanted),
        limit,
        progress,
    )


async def read_items(keys: Keys) -> dict[str, Item]:
    """Return the requested sessions, each once, by the key of its outcome."""
    if isinstance(keys, AsyncIterable):
        return dict([_read_item(item) async for item in keys])

    return dict(await map_with_checkpoints(_read_item, keys))


def _read_statuses(until: str | Iterable[str]) -> list[SessionStatus]:
    try:
        given = [until] if isinstance(until, str) else list(until)
    except TypeError:
        msg = f"until is a status, several of them, or a function of a SessionInfo, not {until!r}"
        raise InvalidRequest(msg) from None

    if not given:
        raise InvalidRequest(
            "until names no status: give at least one, or kaleden.TERMINAL_STATUSES"
        )

    return sorted(check_status(each) for each in given)


def _read_item(item: Any) -> tuple[str, Item]:
    key = key_of(item)
    if isinstance(item, Failure):
        return key, item

    try:
        check_id(key if isinstance(item, SessionInfo) else item)
    except InvalidRequest as error:
        return key, Failure(key, FailureKind.INVALID, str(error), attempts=0)

    return key, item


def show_start(events: Outcome[tuple[Event, ...]], *, has_start_time: bool) -> bool:
    """Return whether the events of a session that is Pending show that it was started.

    A session gets its start time when it is admitted, before its image is pulled. Without a pod it
    is not being started: it was started before, and then requeued or suspended.
    """
    if isinstance(events, Failure):
        return has_start_time and events.kind is FailureKind.NOT_FOUND

    if not events.value:
        return has_start_time

    return any(event.reason == "Started" for event in events.value)


def may_be_read_later(events: Outcome[tuple[Event, ...]]) -> bool:
    """Return whether events could not be read for a reason that may pass."""
    return isinstance(events, Failure) and (
        events.kind in MAY_PASS or events.kind is FailureKind.NOT_AUTHENTICATED
    )


def _is_late(outcome: Outcome[SessionInfo]) -> TypeGuard[Failure]:
    return isinstance(outcome, Failure) and outcome.kind is FailureKind.PENDING_TIMEOUT


def _format_events(events: Outcome[tuple[Event, ...]]) -> str:
    """Format the last events of a session as a short text."""
    if isinstance(events, Failure) and events.kind is not FailureKind.NOT_FOUND:
        return f"its events could not be read: {events.message[:EVENT_LENGTH]}"

    # The server responds with 404 until it has started something for the session.
    last = events.value[-MAX_EVENTS:] if isinstance(events, Success) else ()
    if not last:
        return "the platform reports no events for it"

    lines = (" ".join(f"{event.reason}: {event.message}".split()) for event in last)
    return f"its last events: {'; '.join(each[:EVENT_LENGTH] for each in lines)}"
