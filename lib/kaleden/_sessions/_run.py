"""A whole batch in one call: launch, wait, collect the results."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final, final

import anyio
from attrs import evolve, frozen

from kaleden._engine import _operations
from kaleden._engine._collectors import Collector
from kaleden._engine._config import check_number
from kaleden._engine._tasks import open_task_group
from kaleden._engine._timeouts import RequestTimeout
from kaleden._errors import FailureKind, InvalidRequest
from kaleden._results._batch import Failure, FinishedSession, Outcome, Outcomes, Success
from kaleden._results._progress import ProgressCallback, ProgressUpdate
from kaleden._sessions._components import Components
from kaleden._sessions._scope import Scope
from kaleden._wire import TERMINAL_STATUSES, SessionInfo, SessionSpec, SessionStatus

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


async def run(
    components: Components,
    scope: Scope,
    spec: SessionSpec,
    start: StartRule | None,
    progress: ProgressCallback | None,
) -> Outcomes[FinishedSession]:
    """Launch *spec* in *scope*, and collect the result of every replica."""
    batch = _BatchRun(components, anyio.current_time(), progress)
    created = await scope.create(spec, progress=progress)
    batch.names = {key: name for name, key in created.successes.items()}
    await batch.collect(start)
    outcomes = [
        outcome if isinstance(outcome, Failure) else batch.get_outcome(outcome.key, outcome.value)
        for outcome in created
    ]
    return Outcomes("run", outcomes)


class _BatchRun:
    """The sessions of one run, from launch to end."""

    def __init__(
        self, components: Components, started: float, progress: ProgressCallback | None
    ) -> None:
        self.names: dict[str, str] = {}
        self._components = components
        self._started = started
        self._progress = progress
        self._ended: dict[str, Outcome[SessionInfo]] = {}
        self._results = Collector[FinishedSession]()
        self._statuses = ProgressUpdate()
        self._gave_up: str | None = None

    async def collect(self, start: StartRule | None) -> None:
        """Fetch the log and the events of each session as it ends."""
        async with open_task_group() as group:
            if start is not None:
                group.start_soon(self._give_up_unless, start, group.cancel_scope)
            await self._components.engine.fan_out(
                self._collect_session, self._stream_ended(), self._results
            )
            group.cancel_scope.cancel()

    def get_outcome(self, name: str, session: str) -> Outcome[FinishedSession]:
        """Return the outcome of one replica."""
        result = self._results.outcomes.get(session)
        if result is not None:
            return evolve(result, key=name)

        ended = self._ended.get(session)
        if isinstance(ended, Success):
            message = f"it is {ended.value.status}, and its log was not read: {self._gave_up}"
            return Failure(name, FailureKind.SESSION_FAILED, message, sent=True)

        return Failure(name, FailureKind.PENDING_TIMEOUT, self._gave_up or "", sent=True)

    async def _stream_ended(self) -> AsyncIterator[str]:
        waiting = self._components.waiter.stream(
            list(self.names), TERMINAL_STATUSES, progress=self._on_progress
        )
        async with waiting as ended:
            async for outcome in ended:
                self._ended[outcome.key] = outcome
                yield outcome.key

    def _on_progress(self, statuses: ProgressUpdate) -> None:
        self._statuses = statuses
        if self._progress is not None:
            self._progress(statuses)

    async def _give_up_unless(self, rule: StartRule, scope: anyio.CancelScope) -> None:
        await anyio.sleep(rule.within)
        pending = self._statuses[SessionStatus.PENDING] if self._statuses else len(self.names)
        started = len(self.names) - pending
        if started < rule.least:
            self._gave_up = (
                f"given up: {started} of {len(self.names)} had started after {rule.within:g} "
                f"seconds, and {rule.least} were required"
            )
            scope.cancel()

    async def _collect_session(
        self, session: str, timer: RequestTimeout
    ) -> Outcome[FinishedSession]:
        ended = self._ended[session]
        if isinstance(ended, Failure):
            return ended

        elapsed = anyio.current_time() - self._started
        engine, limits = self._components.engine, self._components.limits
        log = await engine.perform(_operations.logs(limits), session, timer)
        events = await engine.perform(_operations.events(limits), session, timer)
        if isinstance(log, Failure):
            status = ended.value.status
            message = f"the session is {status}, and its log could not be read: {log.message}"
            return evolve(log, message=message)

        # The platform keeps events for about an hour, so there may be none.
        reported = events.value if isinstance(events, Success) else ()
        return _to_outcome(session, FinishedSession(ended.value, log.value, reported, elapsed))


def _to_outcome(session: str, finished: FinishedSession) -> Outcome[FinishedSession]:
    status = finished.info.status
    if status.matches(SessionStatus.COMPLETED):
        return Success(session, finished, elapsed=finished.elapsed)

    warnings = [event.message for event in finished.events if event.type != "Normal"]
    reason = "; ".join([str(status), *warnings[-1:]])
    tail = finished.log[-_TAIL:].strip()
    message = f"{reason}. Its log ends:\n{tail}" if tail else f"{reason}. It has no log"
    return Failure(
        session, FailureKind.SESSION_FAILED, message, sent=True, elapsed=finished.elapsed
    )
