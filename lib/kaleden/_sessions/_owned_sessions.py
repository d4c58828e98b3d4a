"""The owned sessions of a scope, and its launches of unknown outcome.

After its request was sent, each launch is in one of three collections: `in_flight`, `owned` or
`unconfirmed`, until its session is known to be gone, was released, or cannot appear any more.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import final

import anyio
from anyio.abc import TaskGroup
from attrs import frozen

from kaleden._engine._config import Limits
from kaleden._sessions._launch._launch_request import LaunchRequest, get_token
from kaleden._sessions._launch._launcher import InFlightCreate
from kaleden._sessions._ledger._ledger import Ledger
from kaleden._sessions._monitor._history import SessionHistory, Snapshot

logger = logging.getLogger("kaleden")


@final
@frozen
class ScopeStatistics:
    """The state of a `Scope`.

    Attributes:
        owned: sessions that it will destroy.
        launching: creates in flight.
        unconfirmed: creates of unknown outcome; their sessions were not found yet.
    """

    owned: int
    launching: int
    unconfirmed: int


@final
class OwnedSessions:
    """The `LaunchObserver` of a scope.

    Attributes:
        is_open: whether requests may still be sent.
        group: the task group in which they run.
        in_flight: the creates that have begun and not ended.
        owned: the names of the owned sessions by id; the name of an adopted session is its id.
        unconfirmed: the names of creates of unknown outcome, with the time, on the clock of
            the event loop, until which their sessions may appear.
    """

    def __init__(self, limits: Limits, history: SessionHistory, ledger: Ledger | None) -> None:
        self.is_open = False
        self.group: TaskGroup
        self.in_flight: set[InFlightCreate] = set()
        self.owned: dict[str, str] = {}
        self.unconfirmed: dict[str, float] = {}
        self._limits = limits
        self._history = history
        self._ledger = ledger

    def unconfirmed_names(self) -> tuple[str, ...]:
        """Return the names of launches that may have made sessions of unknown id."""
        sent = [create.request.name for create in self.in_flight if create.request.sent is not None]
        return tuple(dict.fromkeys([*self.unconfirmed, *sent]))

    # --- called by launches (`LaunchObserver`) ---------------------------------------------------

    async def before_send(self, request: LaunchRequest) -> None:
        """Record a create before it is sent."""
        if self._ledger is not None:
            await self._ledger.record_launching({get_token(request.name): request.name})

    async def on_created(self, request: LaunchRequest, session: str) -> None:
        """Own a session, before the caller of the launch receives its id."""
        await self.own(request.name, session)

    async def on_unknown(self, request: LaunchRequest) -> None:
        """Remember a create of unknown outcome."""
        assert request.ended is not None  # noqa: S101  # it has ended
        # Without a response the server may still be at work, for as long as a create takes at most.
        at_work = 0.0 if request.answered else self._limits.create_timeout
        self.unconfirmed[request.name] = request.ended + at_work + self._limits.settle

    async def on_not_created(self, request: LaunchRequest) -> None:
        """Forget a launch that made no session."""
        await self._forget([request.name])

    # --- called by the scope ---------------------------------------------------------------------

    async def wait_in_flight(self) -> None:
        """Wait until no create is in flight."""
        while self.in_flight:
            await next(iter(self.in_flight)).done.wait()

    def abandon(self, ids: Iterable[str]) -> None:
        """Disown sessions that outlive the scope, but leave them in the ledger, for `reap`."""
        for key in ids:
            self.owned.pop(key, None)

    async def release(self, ids: Iterable[str]) -> None:
        """Disown sessions that are gone, or that outlive the scope."""
        names = {self.owned.pop(key) for key in ids if key in self.owned}
        await self._record_ended(names - {*self.owned.values(), *self.unconfirmed})

    async def reconcile(self, snapshot: Snapshot) -> None:
        """Own the listed sessions that have names of this scope, and forget expired launches.

        Names are stronger evidence than responses. A list shows the right session of
        a create that received the id of another, and both sessions of a name that appears twice.

        The ledger keeps expired launches, since a list may lag by more than is expected.

        Args:
            snapshot: a list of all sessions.
        """
        launched = {name for session, name in self.owned.items() if name != session}
        names = {*launched, *self.unconfirmed}
        await self.disown_others()
        for info in snapshot.sessions.values():
            if info.name in names and self.owned.get(info.id) != info.name:
                await self.own(info.name, info.id)
        # Launches with a listed session are owned now, and no longer unconfirmed.
        expired = [name for name, until in self.unconfirmed.items() if snapshot.began >= until]
        if expired and snapshot.is_sound:
            logger.warning("these launches may have made sessions that no list shows: %s", expired)
            for name in expired:
                del self.unconfirmed[name]

    async def disown_others(self) -> None:
        """Disown the sessions that have foreign names in a list.

        The responses to creates had the ids of other sessions.
        """
        for session, name in list(self.owned.items()):
            other = self._history.find_other_name(session)
            if other is not None and other not in {*self.owned.values(), *self.unconfirmed}:
                logger.error(
                    "the response to the create of %s had the id %s of session %s",
                    name,
                    session,
                    other,
                )
                del self.owned[session]
                await self._record_doubt(name)

    async def release_unconfirmed(self, *, reapable: bool = False) -> list[str]:
        """Forget the unconfirmed launches; return their names."""
        names = list(self.unconfirmed)
        if reapable:
            self.unconfirmed.clear()
        else:
            await self._forget(names)
        return names

    async def own(self, name: str, session: str) -> None:
        """Own a session that a launch with this name has made."""
        self.unconfirmed.pop(name, None)
        before = self.owned.get(session, name)
        self.owned[session] = name
        self._history.record_name(session, name)
        if before not in {name, session}:
            # The create named *before* had a response with this id.
            await self._record_doubt(before)
        token = get_token(name)
        await self._record(
            lambda ledger: ledger.record_launched(token, session), f"session {session}"
        )

    async def own_again(self, name: str, session: str) -> None:
        """Own a session that an earlier scope has released."""
        launch = {get_token(name): name}
        await self._record(
            lambda ledger: ledger.record_launching(launch), f"the released session {session}"
        )
        await self.own(name, session)

    # --- internal --------------------------------------------------------------------------------

    async def _record_doubt(self, name: str) -> None:
        """Record a create that had the id of another session in its response."""
        if name in self.owned.values():
            return

        wait = self._limits.create_timeout + self._limits.settle
        self.unconfirmed[name] = anyio.current_time() + wait
        launch = {get_token(name): name}
        await self._record(
            lambda ledger: ledger.record_launching(launch), f"the unconfirmed launch {name}"
        )

    async def _forget(self, names: Collection[str]) -> None:
        for name in names:
            self.unconfirmed.pop(name, None)
        await self._record_ended(names)

    async def _record_ended(self, names: Collection[str]) -> None:
        if names:
            tokens = [get_token(name) for name in names]
            await self._record(lambda ledger: ledger.record_ended(tokens), f"the end of {tokens}")

    async def _record(self, write: Callable[[Ledger], Awaitable[None]], fact: str) -> None:
        """Write a fact to the ledger; if that fails, it is still a fact."""
        if self._ledger is not None:
            try:
                await write(self._ledger)
            except OSError as error:
                logger.error("%s is missing in the ledger: %s", fact, error)  # noqa: TRY400
