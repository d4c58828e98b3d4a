"""Launching: one specification, at most one session, and none lost from the account.

The server picks the ids, allows equal names, and knows no way to recognise a repeated request; it
takes seconds to minutes for a create, and goes on with one whose client is gone. So a create is
never sent twice. Its request runs shielded in a task of its own, so that the answer to one that has
left is read even if its caller is cancelled. Where no usable answer comes, the session is looked
for in lists that began after the request, until `Limits.settle` seconds have passed.

Whoever launches gives an `LaunchObserver`, which hears of every session before anybody else does.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack, suppress
from typing import Final, Protocol, TypeGuard, final

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup
from attrs import define, evolve, field

from kaleden._engine import _operations
from kaleden._engine._collectors import Collector, with_progress
from kaleden._engine._config import Limits
from kaleden._engine._engine import Engine
from kaleden._engine._limiter import Limiter, Paused
from kaleden._engine._timeouts import RequestTimeout
from kaleden._errors import FailureKind, RequestError
from kaleden._results._batch import Failure, Outcome, Outcomes, Success
from kaleden._results._outcome import contradict_success
from kaleden._results._progress import ProgressCallback, check_progress
from kaleden._sessions._launch._launch_request import LaunchRequest
from kaleden._sessions._monitor._lister import SharedList
from kaleden._wire import Headers, SessionInfo

_MOST: Final = 1000
"""How many sessions are remembered: what a proxy says twice, it says soon."""


@final
class SeenSessionIds:
    """What the creates of one client were told lately.

    Args:
        most: how many sessions are remembered.

    Attributes:
        names: the names of the sessions that were told, by their ids.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self.names: dict[str, str] = {}

    def check(self, outcome: Outcome[str], name: str) -> Outcome[str]:
        """Turn what can only be the answer to another create into a failure."""
        if not isinstance(outcome, Success):
            return outcome

        if outcome.value in self.names:
            message = f"session {outcome.value}, which was the answer, is another create's"
            return contradict_success(outcome, FailureKind.PROTOCOL, message)

        self.add(outcome.value, name)
        return outcome

    def add(self, session: str, name: str) -> None:
        """Take note of the session that a create has made."""
        self.names[session] = name
        if len(self.names) > self._most:
            del self.names[next(iter(self.names))]


_FIRST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 4.0
"""Seconds between two lists that look for an unanswered launch."""

# No reply, or one of a proxy that got none: the server may still be at work.
_NO_SERVER_RESPONSE: Final = (None, 502, 504)


class LaunchObserver(Protocol):
    """Who answers for the sessions of a launch."""

    group: TaskGroup
    """Where requests run that have left; it outlives the launch."""

    in_flight: set[InFlightCreate]
    """The requests that are on their way."""

    @property
    def is_open(self) -> bool:
        """Whether requests may still leave."""
        ...

    async def before_send(self, ticket: LaunchRequest) -> None:
        """Hear that a request is about to leave; nothing is sent before this returns."""
        ...

    async def on_created(self, ticket: LaunchRequest, session: str) -> None:
        """Hear of a session before its launcher does."""
        ...

    async def on_unknown(self, ticket: LaunchRequest) -> None:
        """Hear that a request has left and its answer tells nothing."""
        ...

    async def on_not_created(self, ticket: LaunchRequest) -> None:
        """Hear that a launch certainly made no session."""
        ...


@final
class Launcher:
    """Launches sessions for one client, a few at a time.

    Args:
        engine: sends the requests.
        lister: tells what is there.
        limits: how many at once, and for how long.
        headers: what goes with each create.
    """

    def __init__(
        self, engine: Engine, lister: SharedList, limits: Limits, headers: Headers = ()
    ) -> None:
        self._engine = engine
        self._lister = lister
        self._limits = limits
        self._headers = headers
        self._gate = Limiter(limits.create_concurrency)
        self._answers = SeenSessionIds()

    async def launch(
        self,
        tickets: Sequence[LaunchRequest],
        account: LaunchObserver,
        progress: ProgressCallback | None = None,
    ) -> Outcomes[str]:
        """Launch each of *tickets* once; the values are the ids of the new sessions."""
        self._engine.check()
        check_progress(progress)
        before = await self._names_before(tickets)
        known = {ticket.key: ticket for ticket in tickets}
        into = Collector[str]()

        async def perform(key: str, _: RequestTimeout) -> Outcome[str]:
            return await self._perform(known[key], account, before)

        sink = with_progress(into, progress, "create", len(known))
        await self._engine.fan_out(perform, known, sink, self._limits.create_concurrency)
        return Outcomes("create", into.done)

    async def _names_before(self, tickets: Sequence[LaunchRequest]) -> Collection[str] | None:
        """List what is there before a launch under the user's own names; None if nobody can tell.

        Without it a session of such a name could be an older one.
        """
        await anyio.lowlevel.checkpoint()
        if all(ticket.token for ticket in tickets):
            return ()

        try:
            return (await self._lister.since_with_retry(anyio.current_time())).sessions.keys()
        except RequestError:
            return None

    async def _perform(
        self, ticket: LaunchRequest, account: LaunchObserver, before: Collection[str] | None
    ) -> Outcome[str]:
        started = anyio.current_time()
        retries = self._engine.retrier
        retries.budget.first += 1
        outcome = await self._send(ticket, account)
        attempts = outcome.attempts
        while _was_not_sent(outcome) and await retries.backoff(outcome, attempts, started):
            ticket.sent = None
            outcome = await self._send(ticket, account)
            attempts += outcome.attempts

        if isinstance(outcome, Failure) and _may_have_created(outcome):
            outcome = await self._reconcile(ticket, account, outcome, before)

        return evolve(outcome, attempts=attempts, elapsed=anyio.current_time() - started)

    async def _send(self, ticket: LaunchRequest, account: LaunchObserver) -> Outcome[str]:
        """Send the request in the account's group, where it goes on if this is cancelled."""
        flight = InFlightCreate(
            self._engine, self._limits, ticket, account, self._answers, self._headers
        )
        # The places belong to the request, which may outlive this task, and are given back by it.
        with ExitStack() as places:
            for gate in (self._gate, self._engine.limiter):
                try:
                    await gate.acquire(flight)
                except Paused as paused:
                    return paused.to_failure(ticket.key, 0.0)

                places.callback(gate.release, flight)
            # The turn may have come at the very moment in which the account was closed.
            if not account.is_open:
                return _not_sent(ticket)

            account.in_flight.add(flight)
            flight.places = places.pop_all()
            account.group.start_soon(flight.run)
        try:
            await flight.done.wait()
        except anyio.get_cancelled_exc_class():
            flight.cancel_after(self._limits.create_grace)
            raise

        if flight.outcome is not None:
            return flight.outcome

        if ticket.sent is None:
            return _not_sent(ticket)

        message = "it was abandoned by its scope, which will look for what came of it"
        return Failure(ticket.key, FailureKind.UNKNOWN_EFFECT, message, sent=True)

    async def _reconcile(
        self,
        ticket: LaunchRequest,
        account: LaunchObserver,
        failure: Failure,
        before: Collection[str] | None,
    ) -> Outcome[str]:
        """Look for the session of a launch whose answer told nothing."""
        found, certain = await self._poll_for_session(ticket, before)
        if found is not None:
            self._answers.add(found.id, ticket.name)
            await account.on_created(ticket, found.id)
            return Success(ticket.key, found.id)

        if ticket.answered and certain:
            # The server is done with it and nothing has come of it.
            await account.on_not_created(ticket)
            return evolve(failure, message=f"{failure.message} (and no session came of it)")

        message = f"a session named {ticket.name} may have been made: {failure.message}"
        return evolve(failure, kind=FailureKind.UNKNOWN_EFFECT, message=message)

    async def _poll_for_session(
        self, ticket: LaunchRequest, before: Collection[str] | None
    ) -> tuple[SessionInfo | None, bool]:
        """List again and again until the session is there, or the time to settle is over.

        Returns:
            The session, if it was found, and whether it is certain that there was none at the end.
        """
        if before is None:
            return None, False

        pause, deadline = _FIRST_PAUSE, anyio.current_time() + self._limits.settle
        while True:
            now = anyio.current_time()
            found, certain = await self._find_new(ticket, before, now)
            if found is not None or now >= deadline:
                return found, certain

            await anyio.sleep(min(pause, max(0.0, deadline - anyio.current_time())))
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _find_new(
        self, ticket: LaunchRequest, before: Collection[str], since: float
    ) -> tuple[SessionInfo | None, bool]:
        try:
            snapshot = await self._lister.since(since)
        except RequestError:
            return None, False

        named = [info for info in snapshot.sessions.values() if info.name == ticket.name]
        new = [info for info in named if info.id not in before and not self._is_known(info)]
        if len(new) == 1:
            return new[0], True

        # Two new ones of one name: somebody else launches it too, and nobody can tell them apart.
        return None, not new and not snapshot.unreadable

    def _is_known(self, info: SessionInfo) -> bool:
        """Whether another create of the same name was told of this session."""
        return self._answers.names.get(info.id) == info.name


@final
@define(eq=False)
class InFlightCreate:
    """A create request that goes its way, whatever becomes of its caller.

    Attributes:
        engine: sends it.
        limits: how long it may take.
        ticket: what is launched.
        account: who answers for it.
        answers: what other launches came to.
        headers: what else goes with the request; a secret may be in there.
        landed: set when its account knows what came of it.
        outcome: what came of it; None if it never left, or was abandoned and got no answer.
        places: its places at the gates.
    """

    engine: Engine
    limits: Limits
    ticket: LaunchRequest
    account: LaunchObserver
    answers: SeenSessionIds
    headers: Headers = field(default=(), repr=False)
    done: anyio.Event = field(factory=anyio.Event)
    outcome: Outcome[str] | None = None
    places: ExitStack = field(factory=ExitStack)
    _shield: anyio.CancelScope = field(factory=lambda: anyio.CancelScope(shield=True))
    _abandoned: bool = False
    _has_begun: bool = False

    def cancel_after(self, grace: float) -> None:
        """Give the answer *grace* seconds more; a request that has not left yet never does."""
        self._abandoned = True
        if not self._has_begun:
            # asyncio never begins a task that is cancelled natively before its first step.
            self._finish()
        self._shield.deadline = min(self._shield.deadline, anyio.current_time() + grace)

    @property
    def _is_stopped(self) -> bool:
        return self._abandoned or not self.account.is_open

    async def run(self) -> None:
        """Send, and tell the account before anybody else."""
        self._has_begun = True
        try:
            # Only native cancellation gets through a shield: of all tasks there are, say, as at the
            # end of asyncio.run. The session may be made all the same.
            with self.places, suppress(anyio.get_cancelled_exc_class()), self._shield:
                await self._send()
            # The account takes its own time to write down what is known.
            with anyio.CancelScope(shield=True):
                await self._notify()
        finally:
            self._finish()

    def _finish(self) -> None:
        self.places.close()
        self.account.in_flight.discard(self)
        self.done.set()

    async def _send(self) -> None:
        key = self.ticket.key
        try:
            if not self._is_stopped:
                await self.account.before_send(self.ticket)
        except OSError as error:
            message = f"nothing was sent, because it could not be written down first: {error}"
            self.outcome = Failure(key, FailureKind.INTERNAL, message, attempts=0)
            return

        if not self._is_stopped:
            self.ticket.sent = anyio.current_time()
            create = _operations.create(self.limits, self.ticket.launch, self.headers)
            told = await self.engine.exchange(create, key)
            self.outcome = self.answers.check(told, self.ticket.name)

    async def _notify(self) -> None:
        ticket, outcome = self.ticket, self.outcome
        ticket.ended = anyio.current_time()
        if isinstance(outcome, Success):
            await self.account.on_created(ticket, outcome.value)
        elif ticket.sent is None or (outcome and not _may_have_created(outcome)):
            await self.account.on_not_created(ticket)
        else:
            ticket.answered = outcome is not None and outcome.status not in _NO_SERVER_RESPONSE
            await self.account.on_unknown(ticket)


def _not_sent(ticket: LaunchRequest) -> Failure:
    message = "the scope was left before this was sent"
    return Failure(ticket.key, FailureKind.CONNECT_FAILED, message, attempts=0)


def _was_not_sent(outcome: Outcome[str]) -> TypeGuard[Failure]:
    """Whether a create was tried and nothing of it was sent: the only kind that is tried again."""
    if isinstance(outcome, Success):
        return False

    return outcome.kind is FailureKind.CONNECT_FAILED and outcome.attempts > 0


def _may_have_created(failure: Failure) -> bool:
    """Whether the server may have made the session; a whole refusal says that it has not."""
    refused = failure.status is not None and 300 <= failure.status < 500
    return failure.sent and failure.kind.may_have_taken_effect and not refused
