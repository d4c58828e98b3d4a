"""What a scope answers for: its sessions, and its launches whose end nobody knows yet.

Every launch that has left is in one of three places: among the flights, the owned sessions, or the
doubts; until its session is known to be gone, was released, or cannot appear any more.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import final

import anyio
from anyio.abc import TaskGroup
from attrs import frozen

from kaleden._engine._config import Limits
from kaleden._sessions._launch._launch_request import LaunchRequest, token_of
from kaleden._sessions._launch._launcher import InFlightCreate
from kaleden._sessions._ledger._ledger import Ledger
from kaleden._wire import SessionInfo

logger = logging.getLogger("kaleden")


@final
@frozen
class ScopeStatistics:
    """The state of a `Scope`.

    Attributes:
        owned: sessions that it will end.
        launching: creates that are on their way.
        doubtful: creates whose answer told nothing, and whose session was not found yet.
    """

    owned: int
    launching: int
    unconfirmed: int


@final
class OwnedSessions:
    """The `LaunchObserver` of a scope's launches.

    Args:
        limits: for how long a session may still appear.
        ledger: where launches are written down, if anywhere.

    Attributes:
        is_open: whether requests may still leave.
        group: where they run.
        in_flight: those that are on their way.
        owned: the names of the owned sessions, by their ids; of adopted ones the ids themselves.
        unconfirmed: for launches whose answer told nothing, by name, until when on the clock of the
            event loop their sessions may still appear.
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
        """Whether nothing is left to answer for."""
        return not (self.owned or self.unconfirmed or self.in_flight)

    def unconfirmed_names(self) -> tuple[str, ...]:
        """Name the launches that may have made sessions of which no id is known."""
        flying = [flight.ticket.name for flight in self.in_flight if flight.ticket.sent is not None]
        return tuple(dict.fromkeys([*self.unconfirmed, *flying]))

    # --- what a launch tells (`LaunchObserver`)
    # ---------------------------------------------------------

    async def before_send(self, ticket: LaunchRequest) -> None:
        """Write down that a request is about to leave."""
        if self._ledger is not None:
            await self._ledger.launching({token_of(ticket.name): ticket.name})

    async def on_created(self, ticket: LaunchRequest, session: str) -> None:
        """Own a session, before its launcher hears of it."""
        await self._own(ticket.name, session)

    async def on_unknown(self, ticket: LaunchRequest) -> None:
        """Keep in mind a request whose answer told nothing."""
        assert ticket.ended is not None  # noqa: S101  # it landed
        # Without an answer the server may still be at work, for as long as a create takes at most.
        wait = self._limits.settle if ticket.answered else self._limits.create_timeout
        self.unconfirmed[ticket.name] = ticket.ended + wait

    async def on_not_created(self, ticket: LaunchRequest) -> None:
        """Forget a launch that made no session."""
        await self._forget([ticket.name])

    # --- what the scope does ---------------------------------------------------------------------

    async def wait_in_flight(self) -> None:
        """Wait until nothing is on its way."""
        while self.in_flight:
            await next(iter(self.in_flight)).done.wait()

    async def release(self, ids: Iterable[str]) -> None:
        """Answer no more for sessions that are gone, or that are to live on."""
        names = {self.owned.pop(key) for key in ids if key in self.owned}
        await self._write_ended(names - {*self.owned.values(), *self.unconfirmed})

    async def reconcile(self, sessions: Mapping[str, SessionInfo], now: float) -> None:
        """Own what is listed under this scope's names, and forget doubts that time has answered.

        Names tell more than answers: they show what was told the id of another session, and should
        a name come twice, both are to end.

        Args:
            sessions: all there are, in a list that began at *now* or later.
            now: on the clock of the event loop.
        """
        ours = {
            name for session, name in self.owned.items() if name != session
        } | self.unconfirmed.keys()
        for info in sessions.values():
            if info.name in ours and self.owned.get(info.id) != info.name:
                await self._own(info.name, info.id)
        # What was listed is owned now, and in doubt no more.
        await self._forget([name for name, until in self.unconfirmed.items() if now >= until])

    async def release_unconfirmed(self) -> list[str]:
        """Forget the unconfirmed launches; return their names."""
        names = list(self.unconfirmed)
        await self._forget(names)
        return names

    # --- inside ----------------------------------------------------------------------------------

    async def _own(self, name: str, session: str) -> None:
        self.unconfirmed.pop(name, None)
        before = self.owned.get(session, name)
        self.owned[session] = name
        if before not in {name, session} and before not in self.owned.values():
            # That launch was told another's id: what became of itself? It had no answer yet.
            self.unconfirmed[before] = anyio.current_time() + self._limits.create_timeout
            doubt = {token_of(before): before}
            await self._note(lambda ledger: ledger.launching(doubt), f"the doubt about {before}")
        token = token_of(name)
        await self._note(lambda ledger: ledger.launched(token, session), f"session {session}")

    async def _forget(self, names: Collection[str]) -> None:
        for name in names:
            self.unconfirmed.pop(name, None)
        await self._write_ended(names)

    async def _write_ended(self, names: Collection[str]) -> None:
        if names:
            tokens = [token_of(name) for name in names]
            await self._note(lambda ledger: ledger.ended(tokens), f"the end of {tokens}")

    async def _note(self, write: Callable[[Ledger], Awaitable[None]], what: str) -> None:
        """Write something down that is so whether it is written or not."""
        if self._ledger is not None:
            try:
                await write(self._ledger)
            except OSError as error:
                logger.error("%s is missing in the ledger: %s", what, error)  # noqa: TRY400
