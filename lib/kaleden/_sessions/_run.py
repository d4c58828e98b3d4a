"""A whole batch in one call: launch, wait, collect the results."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Final, final

import anyio
import anyio.lowlevel
from attrs import evolve, frozen

from kaleden._engine import _operations
from kaleden._engine._collectors import Collector
from kaleden._engine._config import Backoff, check_number
from kaleden._engine._tasks import open_task_group
from kaleden._engine._timeouts import RequestTimeout
from kaleden._errors import FailureKind, InvalidRequest, ScopeError
from kaleden._results._batch import Failure, FinishedSession, Outcome, Outcomes, Success
from kaleden._results._progress import ProgressCallback, ProgressUpdate
from kaleden._sessions._components import Components
from kaleden._sessions._launch._launch_request import LaunchRequest, build_requests_with_tokens
from kaleden._sessions._launch._launcher import may_have_created
from kaleden._sessions._monitor._history import is_started
from kaleden._sessions._monitor._outage import (
    FAILED_INTERVALS,
    MAY_PASS,
    OUTAGE_KINDS,
    REFUSED,
    ConsecutiveFailures,
)
from kaleden._sessions._monitor._wait import may_be_read_later, show_start
from kaleden._sessions._owned_sessions import OwnedSessions
from kaleden._sessions._scope import OnExit, Scope, get_owned_sessions
from kaleden._wire import TERMINAL_STATUSES, SessionInfo, SessionSpec, SessionStatus

logger = logging.getLogger("kaleden")

_LOG_REMOVED: Final = Failure(
    "",
    FailureKind.VANISHED,
    "the server has removed the session before it could be read",
    sent=True,
)

_TAIL: Final = 500
"""Characters of the log of a failed session that its failure quotes."""


@final
@frozen
class StartRule:
    """The condition on which a batch that does not start is given up.

    Attributes:
        least: the number of sessions that must have started.
        within: seconds after the launch of the last session within which they must have started.
    """

    least: int
    within: float


def read_start_rule(
    spec: SessionSpec, min_started: int | None, start_timeout: float | None
) -> StartRule | None:
    """Check the arguments, and return the rule that they state; None if there is no rule.

    Raises:
        InvalidRequest: one of the two is missing, or they cannot be satisfied.
    """
    if min_started is None and start_timeout is None:
        return None

    if min_started is None or start_timeout is None:
        raise InvalidRequest("min_started and start_timeout belong together: give both or none")

    check_number("start_timeout", start_timeout, "seconds", finite=False, error=InvalidRequest)
    check_number("min_started", min_started, "sessions", whole=True, least=1, error=InvalidRequest)
    if min_started > spec.replicas:
        raise InvalidRequest(f"min_started is {min_started}, of {spec.replicas} replicas")

    return StartRule(min_started, start_timeout)


@final
@frozen
class RunOptions:
    """The arguments of one `run`.

    Attributes:
        spec: the sessions to launch.
        new_scope: makes the scope that owns them.
        start: the condition on which the batch is given up.
        on_unread: the action on a session whose log could not be read.
        max_log_bytes: bytes of each log that are kept, its last ones.
        progress: the callback of the caller.
    """

    spec: SessionSpec
    new_scope: Callable[[], Scope]
    start: StartRule | None = None
    on_unread: OnExit = "release"
    max_log_bytes: int | None = None
    progress: ProgressCallback | None = None


async def run(
    components: Components,
    options: RunOptions,
    keys: Collection[str] | None = None,
    released: Mapping[str, tuple[str, str]] = MappingProxyType({}),
    ended: Collection[tuple[str, str]] = (),
) -> Outcomes[FinishedSession]:
    """Launch sessions in a scope, and collect the result of every replica.

    Args:
        components: the components of the client.
        options: the arguments of the call.
        keys: the keys of the replicas; None for all.
        released: the id and the name of the sessions that an earlier call has released, by the keys
            of their replicas. They are waited for, and no others are launched in their place.
        ended: the same of further released sessions, which are only to be destroyed.

    Raises:
        ScopeError: the clean-up could not end all sessions; it has the outcomes.
    """
    batch = _BatchRun(components, options)
    try:
        async with options.new_scope() as scope:
            for session, name in [*released.values(), *ended]:
                await get_owned_sessions(scope).own_again(name, session)
            await batch.run(scope, keys, released, dict(ended))
    except ScopeError as error:
        error.outcomes = batch.outcomes
        raise

    return batch.outcomes


class _BatchRun:
    """The sessions of one run, from launch to end.

    Attributes:
        outcomes: the outcomes so far.
    """

    def __init__(self, components: Components, options: RunOptions) -> None:
        self.outcomes: Outcomes[FinishedSession] = Outcomes("run", [])
        self._components = components
        self._options = options
        self._started = anyio.current_time()
        self._names: dict[str, str] = {}
        self._ended: dict[str, Outcome[SessionInfo]] = {}
        self._results = Collector[FinishedSession]()
        self._statuses = ProgressUpdate()
        self._gave_up: str | None = None
        self._has_outage = False
        # Whether a log could not be read for as long as is tolerated: then no other is waited for.
        self._has_waited = False
        self._unread: set[str] = set()

    async def run(
        self,
        scope: Scope,
        keys: Collection[str] | None,
        released: Mapping[str, tuple[str, str]],
        ended: Mapping[str, str],
    ) -> None:
        """Launch the sessions, wait for them, and collect their results.

        *ended* has the names of further sessions of the scope, which are only to be destroyed.
        """
        options, owned = self._options, get_owned_sessions(scope)
        scope.names.add(options.spec.name)
        requests = build_requests_with_tokens(options.spec)
        wanted = [request for request in requests if keys is None or request.key in keys]
        new = [request for request in wanted if request.key not in released]
        created = await self._launch(new, owned)
        sessions = {key: each.value for key, each in created.items() if isinstance(each, Success)}
        sessions |= {key: session for key, (session, _) in released.items()}
        self._names = {session: key for key, session in sessions.items()}
        await self._collect()

        if self._gave_up is not None:
            self._unread |= {key for key, each in self._ended.items() if isinstance(each, Success)}
            self._unread -= {key for key, each in self._results.outcomes.items() if each}
        left = self._select_released(dict(owned.owned), ended)
        await self._release(scope, left)
        failures = {key: each for key, each in created.items() if isinstance(each, Failure)}
        self.outcomes = Outcomes(
            "run",
            [
                failures.get(request.key) or self._get_outcome(sessions[request.key], left)
                for request in wanted
            ],
            again=partial(_run_again, self._components, options, self._list_released(left)),
        )

    async def _launch(
        self, requests: Sequence[LaunchRequest], owned: OwnedSessions
    ) -> dict[str, Outcome[str]]:
        """Launch the sessions; repeat creates that an outage has prevented, when it has ended."""
        poller, launcher = self._components.waiter.sessions, self._components.launcher
        created, left = dict[str, Outcome[str]](), requests
        while left:
            outcomes = await launcher.launch(left, owned, self._options.progress, poller.patience)
            created |= {outcome.key: outcome for outcome in outcomes}
            left = [request for request in left if _may_be_launched_later(outcomes[request.key])]
            if left and not (poller.patience.has_connected() and await poller.wait_outage_end()):
                break

        return created

    async def _collect(self) -> None:
        """Fetch the log and the events of each session as it ends."""
        start = self._options.start
        async with open_task_group() as group:
            if start is not None:
                group.start_soon(self._give_up_unless, start, group.cancel_scope)
            await self._components.engine.fan_out(
                self._collect_session, self._stream_ended(), self._results
            )
            group.cancel_scope.cancel()

    def _select_released(self, owned: dict[str, str], ended: Collection[str]) -> dict[str, str]:
        """Return the sessions that the run leaves on the platform: their names by their ids."""
        if self._has_outage:
            known = {*self._names, *ended}
            return {session: name for session, name in owned.items() if session in known}

        if self._options.on_unread == "destroy":
            return {}

        return {session: name for session, name in owned.items() if session in self._unread}

    def _list_released(self, left: Mapping[str, str]) -> list[_Released]:
        """Return the sessions that are left, for a repetition."""
        return [
            _Released(self._names.get(key, ""), key, name, self._has_result(key))
            for key, name in left.items()
        ]

    def _has_result(self, session: str) -> bool:
        if session not in self._names:
            return True  # of an earlier run

        ended = self._ended.get(session)
        return isinstance(ended, Success) and session not in self._unread

    async def _release(self, scope: Scope, left: Mapping[str, str]) -> None:
        # Log it first: a cancellation here loses the outcomes.
        if left:
            reason = "an outage" if self._has_outage else "logs that could not be read"
            named = ", ".join(f"{session} ({left[session]})" for session in sorted(left))
            logger.warning("the run releases the sessions %s because of %s", named, reason)
        if self._has_outage:
            # Their results may still be needed; `reap` ends them if nobody else does.
            await scope.release(reapable=True)
        else:
            await scope.release(left)

    def _get_outcome(self, session: str, left: Mapping[str, str]) -> Outcome[FinishedSession]:
        """Return the outcome of one replica."""
        outcome = self._results.outcomes.get(session) or self._explain_given_up(session)
        if isinstance(outcome, Failure) and session in left:
            # A wrong id in the response to the create would hide the session without its name.
            note = f"session {session} was released; it was launched as {left[session]}"
            outcome = evolve(outcome, message=f"{outcome.message} ({note})")
        if isinstance(outcome, Failure):
            outcome = evolve(outcome, session=session)
        return evolve(outcome, key=self._names[session])

    def _explain_given_up(self, session: str) -> Failure:
        ended = self._ended.get(session)
        if isinstance(ended, Success):
            message = f"it is {ended.value.status}, and its log was not read: {self._gave_up}"
            return Failure(session, FailureKind.SESSION_FAILED, message, sent=True)

        return Failure(session, FailureKind.PENDING_TIMEOUT, self._gave_up or "", sent=True)

    async def _stream_ended(self) -> AsyncIterator[str]:
        waiting = self._components.waiter.stream(
            list(self._names), TERMINAL_STATUSES, progress=self._on_progress
        )
        async with waiting as ended:
            async for outcome in ended:
                self._ended[outcome.key] = outcome
                yield outcome.key

    def _on_progress(self, statuses: ProgressUpdate) -> None:
        self._statuses = statuses
        if self._options.progress is not None:
            self._options.progress(statuses)

    async def _give_up_unless(self, rule: StartRule, scope: anyio.CancelScope) -> None:
        await anyio.sleep(rule.within)
        # The last list may be from before that, and there may be an outage.
        if not await self._components.waiter.sessions.wait_available():
            return  # The waits end, too.

        await anyio.lowlevel.checkpoint()
        started = self._statuses.started + await self._count_restarting()
        if started < rule.least:
            self._gave_up = (
                f"given up: {started} of {len(self._names)} had started after {rule.within:g} "
                f"seconds, and {rule.least} were required"
            )
            scope.cancel()

    async def _count_restarting(self) -> int:
        """Count the sessions that are Pending and may have been started, as their events show."""
        listed, history = self._components.waiter.sessions.last, self._components.sessions.history
        pending = [
            key
            for key, info in ({} if listed is None else listed.sessions).items()
            if key in self._names and info.start_time is not None and not is_started(info)
        ]
        pending = [key for key in pending if not history.has_started(key)]
        events = await self._components.engine.collect(
            _operations.events(self._components.limits), pending
        )
        # A session whose events cannot be read may have been started.
        return sum(
            may_be_read_later(each) or show_start(each, has_start_time=True) for each in events
        )

    async def _collect_session(
        self, session: str, timer: RequestTimeout
    ) -> Outcome[FinishedSession]:
        ended = self._ended[session]
        if isinstance(ended, Failure):
            self._has_outage = self._has_outage or ended.kind in OUTAGE_KINDS
            return ended

        elapsed = anyio.current_time() - self._started
        engine, limits = self._components.engine, self._components.limits
        log = await self._read_log(session, timer)
        if isinstance(log, Failure):
            self._unread.add(session)
            status = ended.value.status
            message = f"the session is {status}, and its log could not be read: {log.message}"
            return evolve(log, key=session, message=message)

        events = await engine.perform(_operations.events(limits), session, timer)
        # The platform keeps events for about an hour, so there may be none.
        reported = events.value if isinstance(events, Success) else ()
        finished = FinishedSession(ended.value, log.value, reported, elapsed)
        return _to_outcome(session, finished, log.omitted)

    def _is_listed(self, session: str) -> bool:
        last = self._components.waiter.sessions.last
        return last is not None and session in last.sessions

    async def _read_log(self, session: str, timer: RequestTimeout) -> Outcome[str]:
        """Read the log of a session; in an outage, read it again until the patience ends."""
        engine, poller = self._components.engine, self._components.waiter.sessions
        limits, outage = self._components.limits, poller.patience.outage
        operation = _operations.logs(limits, self._options.max_log_bytes)
        # Either this loop repeats the request, or the retry policy does.
        operation = evolve(operation, idempotent=not outage)
        failures, backoff = ConsecutiveFailures(), Backoff(*FAILED_INTERVALS)
        while True:
            # A `Retry-After` of the server does not extend the patience.
            deadline = min(anyio.current_time() + (outage or limits.timeout), failures.ends_at)
            log = await engine.perform(operation, session, timer, deadline)
            if isinstance(log, Success):
                self._has_waited = False
                # The server sends an empty log for a session that it has removed meanwhile.
                is_lost = not log.value and failures.has_any and not self._is_listed(session)
                return _LOG_REMOVED if is_lost else log

            failures.record_failure(log, poller.patience.compute_limit_of_log(log))
            self._has_waited = self._has_waited or (failures.is_final and failures.seconds > 0)
            if failures.is_final or self._has_waited or self._has_outage:
                return log

            with anyio.CancelScope(deadline=failures.ends_at):
                await anyio.sleep(backoff.next())
                self._has_outage = not await poller.wait_available(soon=False) or self._has_outage


@final
@frozen
class _Released:
    """A session that a run has released.

    Attributes:
        key: the key of its replica; empty if an earlier run has its result.
        id: the id of the session.
        name: its name on the server.
        has_result: whether its result is known, so that it is not needed any more.
    """

    key: str
    id: str
    name: str
    has_result: bool


async def _run_again(
    components: Components,
    options: RunOptions,
    released: Sequence[_Released],
    keys: Sequence[str],
) -> Outcomes[FinishedSession]:
    """Wait for released sessions without results, end the others, and launch what is missing."""
    waited_for = {each.key: (each.id, each.name) for each in released if not each.has_result}
    ended = [(each.id, each.name) for each in released if each.has_result]
    return await run(components, evolve(options, start=None), keys, waited_for, ended)


def _may_be_launched_later(outcome: Outcome[str]) -> bool:
    """Return whether an outage may have prevented a create, which certainly made no session."""
    return (
        isinstance(outcome, Failure)
        and outcome.kind in MAY_PASS | REFUSED
        and not may_have_created(outcome)
    )


def _to_outcome(session: str, finished: FinishedSession, omitted: int) -> Outcome[FinishedSession]:
    status = finished.info.status
    if status.matches(SessionStatus.COMPLETED):
        return Success(session, finished, elapsed=finished.elapsed, omitted=omitted)

    warnings = [event.message for event in finished.events if event.type != "Normal"]
    reason = "; ".join([str(status), *warnings[-1:]])
    tail = finished.log[-_TAIL:].strip()
    message = f"{reason}. Its log ends:\n{tail}" if tail else f"{reason}. It has no log"
    return Failure(
        session, FailureKind.SESSION_FAILED, message, sent=True, elapsed=finished.elapsed
    )
