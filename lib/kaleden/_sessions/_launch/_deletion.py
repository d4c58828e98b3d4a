"""Verified deletion of sessions.

The server responds to every delete with status 200, also for an unknown session and when the delete
failed. So the responses prove little. Lists that begin after the deletes decide, and the deletes
are repeated until they do; `kaleden._sessions._monitor._history` describes the proof.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterable, Container, Iterable
from functools import partial
from typing import Any, Final, final

import anyio
from attrs import define, evolve

from kaleden._engine import _operations
from kaleden._engine._collectors import Collector, to_progress_update, with_progress
from kaleden._engine._config import Backoff, Limits
from kaleden._engine._engine import Engine
from kaleden._engine._retry import DEADLINE_MARGIN
from kaleden._engine._targets import Keys, drop_failed_launches, length_of, to_target
from kaleden._engine._tasks import map_with_checkpoints
from kaleden._engine._timeouts import RequestTimeout
from kaleden._errors import FailureKind, InvalidRequest, RequestError, SessionNotOpen
from kaleden._results._batch import Failure, Outcome, Outcomes, Success
from kaleden._results._outcome import contradict_success
from kaleden._results._progress import OK, ProgressCallback, check_progress
from kaleden._sessions._monitor._history import (
    SessionHistory,
    SessionState,
    Snapshot,
    index_names,
)
from kaleden._sessions._monitor._lister import SharedList
from kaleden._wire import Request, SessionStatus, check_id

INTERVALS: Final = (0.25, 4.0)
"""Seconds between two rounds of deletes and lists: the first interval and the longest."""

_CLEAN_UP_TIMEOUT: Final = 10.0
"""Seconds for one delete of a clean-up, so that one without a response is repeated in its grace."""

_NAME_GIVEN: Final = "this is the name of session {names}: give the id"

_REPEAT_AFTER: Final = 1.0
"""Seconds after which a delete that shows no effect is repeated for the first time."""


async def destroy(
    engine: Engine,
    sessions: SharedList,
    limits: Limits,
    keys: Keys,
    progress: ProgressCallback | None = None,
) -> Outcomes[bool]:
    """Delete sessions, and verify with lists that they are gone, for up to *settle* seconds.

    *progress* is called after each response, and at the end with the result of the lists.
    """
    engine.check()
    check_progress(progress)
    deletion = Deletion(engine, sessions, limits)
    keys = drop_failed_launches(keys)
    if isinstance(keys, AsyncIterable) or any(_is_id(to_target(item)) for item in keys):
        await deletion.list_before()
    responses = await deletion.send(keys, progress)
    await _verify(deletion, sessions.history)
    outcomes = await map_with_checkpoints(deletion.conclude, responses)
    verified = Outcomes("destroy", outcomes, again=partial(destroy, engine, sessions, limits))
    if progress is not None and deletion.targets:
        counts = Counter[str]({OK: len(verified.values)}) + verified.counts()
        progress(to_progress_update("destroy", counts, len(verified)))
    return verified


async def _verify(deletion: Deletion, history: SessionHistory) -> None:
    """List sessions, and repeat deletes without effect, until the lists have settled."""
    started = anyio.current_time()
    # At the deadline itself this task would be cancelled, and lose the outcomes.
    deadline = anyio.current_effective_deadline() - DEADLINE_MARGIN
    backoff = Backoff(*INTERVALS)
    while deletion.pending:
        began = anyio.current_time()
        await deletion.verify()
        due, end = deletion.compute_next(backoff), started + history.settle
        if began < end:
            due = min(due, end)
        elif not deletion.expects_proof:
            return

        if deletion.has_failed or due >= deadline:
            return

        await anyio.sleep_until(due)
        await deletion.send(deletion.find_ineffective())


@final
@define(eq=False)
class _Target:
    """A session to delete.

    Attributes:
        state: the evidence for its state.
        response: the outcome of its last delete.
        first: when the response to its first delete came.
        last: when the response to its last delete came.
        accepted: the number of deletes that the server has accepted.
        existed: whether it certainly existed before.
        is_gone: whether it is proved gone.
    """

    state: SessionState
    response: Outcome[bool]
    first: float
    last: float
    existed: bool
    accepted: int = 0
    is_gone: bool = False


@final
class Deletion:
    """Deletes sessions repeatedly, and lists them, until the lists prove that they are gone.

    Args:
        engine: sends the deletes.
        sessions: lists the sessions.
        limits: the time-outs of requests.
        is_clean_up: whether requests that fail are repeated in the next round, rather than retried
            at once within the retry policy.

    Attributes:
        targets: the sessions whose deletes may have had an effect, by id.
        pending: those of them that are not proved gone, as the last list shows.
        has_failed: whether the last list failed.
    """

    def __init__(
        self, engine: Engine, sessions: SharedList, limits: Limits, *, is_clean_up: bool = False
    ) -> None:
        self._engine = engine
        self._sessions = sessions
        self._is_clean_up = is_clean_up
        operation = _operations.destroy(limits, idempotent=not is_clean_up)
        self._build_delete = operation.build
        seconds = min(limits.timeout, _CLEAN_UP_TIMEOUT) if is_clean_up else limits.timeout
        self._operation = evolve(operation, build=self._build, first=is_clean_up, timeout=seconds)
        self._before: Snapshot | None = None
        self._names: dict[str, list[str]] = {}
        self._listing: Snapshot | Failure | None = None
        self.targets: dict[str, _Target] = {}
        self.pending: dict[str, _Target] = {}
        self.has_failed: bool = False

    async def list_before(self) -> Snapshot | None:
        """List the sessions, to know which of them exist before the deletes have an effect.

        Returns:
            The list; None if it failed.
        """
        try:
            self._before = await self._fetch_list()
        except (RequestError, SessionNotOpen):
            return None

        self._names = index_names(self._before)
        for target in self.targets.values():
            if target.state.status is None:
                target.state.update(self._before)
        return self._before

    def _build(self, key: str) -> Request:
        request = self._build_delete(key)
        named = self._names.get(key.lower())
        if named:
            raise InvalidRequest(_NAME_GIVEN.format(names=", ".join(named)))

        self._sessions.history.record_deleted(key)
        return request

    async def send(self, keys: Keys, progress: ProgressCallback | None = None) -> Outcomes[bool]:
        """Send the deletes of sessions, and return the responses."""
        collector = Collector[bool]()
        sink = with_progress(collector, progress, "destroy", length_of(keys), "answered")
        await self._engine.fan_out(self._perform, keys, sink)
        return Outcomes("destroy", collector.results)

    async def _perform(self, item: Any, timer: RequestTimeout) -> Outcome[bool]:
        outcome = await self._engine.perform(self._operation, item, timer)
        # Record it at once: the clean-up may end while other responses are missing.
        self._record(outcome)
        return outcome

    def _record(self, outcome: Outcome[bool]) -> None:
        now = anyio.current_time()
        target = self.targets.get(outcome.key)
        if target is not None:
            target.response, target.last = outcome, now
        elif self._is_clean_up or _may_be_effective(outcome):
            state = SessionState(outcome.key, self._sessions.history, is_deleted=True)
            known = self._before or self._sessions.last
            if known is not None:
                state.update(known)
            existed = state.is_known or self._before is None
            target = self.targets[outcome.key] = _Target(state, outcome, now, now, existed)
            self.pending[outcome.key] = target
        else:
            return

        target.accepted += outcome.ok
        target.state.needs_longer_proof = not outcome.ok
        if outcome.ok:
            target.state.restart()

    def needs_list(self, keys: Iterable[str]) -> bool:
        """Return whether to list before the first deletes, as sessions were not listed so far."""
        last = self._sessions.last
        listed = {} if last is None else last.sessions
        return any(key not in listed and not self._sessions.history.was_listed(key) for key in keys)

    async def verify(self) -> Snapshot | None:
        """List the sessions, and find those that are gone.

        Returns:
            The list; None if it failed.
        """
        self.has_failed = True
        try:
            listing = self._listing = await self._fetch_list()
        except RequestError as error:
            self._listing = error.failure
            return None
        except SessionNotOpen:
            return None

        self.has_failed = False
        # Also those that are proved gone: a list that lags may show one of them again.
        await map_with_checkpoints(lambda each: self._update(each, listing), self.targets.values())
        self.pending = {key: each for key, each in self.targets.items() if self._is_open(each)}
        return listing

    async def _fetch_list(self) -> Snapshot:
        if self._is_clean_up:
            return await self._sessions.since(anyio.current_time(), first=True)

        return await self._sessions.since_with_retry(anyio.current_time())

    def _update(self, target: _Target, listing: Snapshot) -> None:
        if _was_refused(target.response):
            return

        info = target.state.update(listing)
        if info is None:
            target.is_gone = target.state.is_gone
        elif info.status == SessionStatus.TERMINATING:
            target.is_gone = True
        else:
            # It does not run any more. A second delete is for a first one that had no effect.
            target.is_gone = info.status.is_terminal and target.accepted >= 2
        if target.is_gone:
            self._sessions.history.forget(target.state.key)

    def _is_open(self, target: _Target) -> bool:
        """Return whether later lists may show more of the effect of a delete."""
        response = target.response
        if target.is_gone or _was_refused(response):
            return False

        # Only a clean-up repeats a delete that failed.
        has_failed = isinstance(response, Failure) and not self._is_clean_up
        return not (has_failed and target.state.is_listed)

    def find_ineffective(self) -> list[str]:
        """Return the pending sessions whose deletes are to be repeated now."""
        now = anyio.current_time()
        return [key for key, target in self.pending.items() if self._is_ineffective(target, now)]

    def _is_ineffective(self, target: _Target, now: float) -> bool:
        if isinstance(target.response, Failure):
            return self._is_clean_up

        if target.state.is_listed and target.state.has_ended:
            return True

        # The time from one delete to the next doubles.
        is_due = now >= target.last + max(_REPEAT_AFTER, target.last - target.first)
        return is_due and target.state.proof_due is None

    @property
    def expects_proof(self) -> bool:
        """Whether the next list can be the one that proves a session gone."""
        now, listing = anyio.current_time(), self._listing
        if isinstance(listing, Snapshot) and listing.empty_for is not None:
            return True  # The lists after it are believed.

        dues = [target.state.proof_due for target in self.pending.values()]
        return any(due is not None and due > now for due in dues)

    def compute_next(self, backoff: Backoff) -> float:
        """Return the time of the next round."""
        now = anyio.current_time()
        states = [target.state for target in self.pending.values()]
        dues = [state.proof_due for state in states]
        # A list at a time that is due, and still no proof: that list did not count.
        if not dues or any(due is None or due <= now for due in dues):
            times = [due for due in dues if due is not None]
            times += [state.counts_from for state in states]
            return min([now + backoff.next(), *(time for time in times if time > now)])

        # One more list at the right time proves all of them gone.
        return max([now, *(due for due in dues if due is not None)])

    def keep(self, keys: Container[str]) -> None:
        """Drop all targets but those of *keys*."""
        self.targets = {key: target for key, target in self.targets.items() if key in keys}
        self.pending = {key: target for key, target in self.pending.items() if key in keys}

    def list_gone(self) -> list[str]:
        """Return the sessions that are proved gone."""
        return [key for key, target in self.targets.items() if target.is_gone]

    def explain(self, key: str) -> Failure | None:
        """Return why a session may be left; None if no response to a delete has come."""
        target = self.targets.get(key)
        outcome = None if target is None else self.conclude(target.response)
        return outcome if isinstance(outcome, Failure) else None

    def conclude(self, outcome: Outcome[bool]) -> Outcome[bool]:
        """Return the outcome of one session: True if it was ended, False if there was none."""
        target = self.targets.get(outcome.key)
        if target is None:
            return outcome

        response, state = target.response, target.state
        names = self._find_names(state)
        if names and isinstance(response, Success):
            message = _NAME_GIVEN.format(names=names)
            return contradict_success(response, FailureKind.NOT_FOUND, message)

        if target.is_gone:
            existed = target.existed or state.status is not None
            return Success(outcome.key, existed, response.attempts, response.elapsed)

        if isinstance(response, Failure):
            return response

        listing = self._listing
        status = listing.status if isinstance(listing, Failure) else None
        message = f"the server responded to the delete, but {self._describe_doubt(state)}"
        return contradict_success(response, FailureKind.NOT_DESTROYED, message, status)

    def _find_names(self, state: SessionState) -> str:
        """Return the ids of the sessions of which the target of a delete is the name."""
        if state.is_known or not isinstance(self._listing, Snapshot):
            return ""

        self._names = self._names or index_names(self._listing)
        return ", ".join(self._names.get(state.key.lower(), ()))

    def _describe_doubt(self, state: SessionState) -> str:
        """Describe why a session is not proved gone."""
        listing = self._listing
        if isinstance(listing, Failure):
            return f"the list that should prove it failed: {listing.message}"

        if state.is_listed:
            return f"still lists the session as {state.status}"

        if listing is not None and listing.unreadable:
            return f"its list has {listing.unreadable} elements that cannot be identified"

        return "no list proves yet that the session is gone"


def _is_id(item: object) -> bool:
    try:
        check_id(item)
    except InvalidRequest:
        return False

    return True


def _was_refused(response: Outcome[bool]) -> bool:
    """Return whether no delete was sent, because the id is not one."""
    return isinstance(response, Failure) and response.kind is FailureKind.INVALID


def _may_be_effective(outcome: Outcome[bool]) -> bool:
    """Return whether only lists can show the effect of the delete."""
    if isinstance(outcome, Success):
        return True

    return outcome.sent and (
        outcome.kind.may_have_taken_effect or outcome.kind is FailureKind.NOT_FOUND
    )
