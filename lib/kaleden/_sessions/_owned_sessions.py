"""The owned sessions of a scope, and its launches of unknown outcome.

After its request was sent, each launch is in one of three collections: `in_flight`, `owned` or
`unconfirmed`, until its session is known to be gone, was released, or cannot appear any more.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import final

import anyio
from anyio.abc import TaskGroup
from attrs import frozen

from kaleden._engine._config import Limits
from kaleden._sessions._launch._launch_request import LaunchRequest, get_token
from kaleden._sessions._launch._launcher import InFlightCreate
from kaleden._sessions._ledger._ledger import Ledger
from kaleden._wire import SessionInfo

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

    def __init__(self, limits: Limits, ledger: Ledger | None) -> None:
        self.is_open = False
        self.group: TaskGroup
        self.in_flight: set[InFlightCreate] = set()
        self.owned: dict[str, str] = {}
        self.unconfirmed: dict[str, float] = {}
        self._limits = limits
        self._ledger = ledger

    @property
    def is_empty(self) -> bool:
        """Whether nothing is owned, unconfirmed or in flight."""
        return not (self.owned or self.unconfirmed or self.in_flight)

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
        await self._own(request.name, session)

    async def on_unknown(self, request: LaunchRequest) -> None:
        """Remember a create of unknown outcome."""
        assert request.ended is not None  # noqa: S101  # it has ended
        # Without a response the server may still be at work, for as long as a create takes at most.
        wait = self._limits.settle if request.answered else self._limits.create_timeout
        self.unconfirmed[request.name] = request.ended + wait

    async def on_not_created(self, request: LaunchRequest) -> None:
        """Forget a launch that made no session."""
        await self._forget([request.name])

    # --- called by the scope ---------------------------------------------------------------------

    async def wait_in_flight(self) -> None:
        """Wait until no create is in flight."""
        while self.in_flight:
            await next(iter(self.in_flight)).done.wait()

    async def release(self, ids: Iterable[str]) -> None:
        """Disown sessions that are gone, or that outlive the scope."""
        names = {self.owned.pop(key) for key in ids if key in self.owned}
        await self._record_ended(names - {*self.owned.values(), *self.unconfirmed})

    async def reconcile(self, sessions: Mapping[str, SessionInfo], now: float) -> None:
        """Own the listed sessions that have names of this scope, and forget expired launches.

        Names are stronger evidence than responses. A list shows the right session of
        a create that received the id of another, and both sessions of a name that appears twice.

        Args:
            sessions: all sessions of a list that began at *now* or later.
            now: a time on the clock of the event loop.
        """
        launched = {name for session, name in self.owned.items() if name != session}
        names = launched | self.unconfirmed.keys()
        for info in sessions.values():
            if info.name in names and self.owned.get(info.id) != info.name:
                await self._own(info.name, info.id)
        # Launches with a listed session are owned now, and no longer unconfirmed.
        await self._forget([name for name, until in self.unconfirmed.items() if now >= until])

    async def release_unconfirmed(self) -> list[str]:
        """Forget the unconfirmed launches; return their names."""
        names = list(self.unconfirmed)
        await self._forget(names)
        return names

    # --- internal --------------------------------------------------------------------------------

    async def _own(self, name: str, session: str) -> None:
        self.unconfirmed.pop(name, None)
        before = self.owned.get(session, name)
        self.owned[session] = name
        if before not in {name, session} and before not in self.owned.values():
            # The create named *before* had a response with this id: its own outcome is unknown.
            self.unconfirmed[before] = anyio.current_time() + self._limits.create_timeout
            launch = {get_token(before): before}
            await self._record(
                lambda ledger: ledger.record_launching(launch), f"the unconfirmed launch {before}"
            )
        token = get_token(name)
        await self._record(
            lambda ledger: ledger.record_launched(token, session), f"session {session}"
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
