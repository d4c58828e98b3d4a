"""Looking on while others work: the sessions of a scope, as they stand, until its block ends."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import ExitStack, asynccontextmanager
from typing import TypeAlias, final

from attrs import evolve

from kaleden._engine._tasks import map_with_checkpoints, open_task_group
from kaleden._errors import InvalidRequest
from kaleden._results._progress import check_synchronous
from kaleden._results._session_list import SessionList
from kaleden._results._tables import open_display
from kaleden._sessions._monitor._lister import Snapshot
from kaleden._sessions._monitor._poller import Poller, SessionState
from kaleden._wire import SessionInfo, SessionStatus

logger = logging.getLogger("kaleden")

Show: TypeAlias = Callable[[SessionList], object]
"""Shows how sessions stand."""

GONE = SessionStatus("gone")
"""What is shown for a session that is no longer listed, and had not ended."""


def check_show(show: Show | None) -> Show | None:
    """Make sure that it can be called, if it is given.

    Raises:
        InvalidRequest: it cannot, or it is asynchronous.
    """
    if show is not None and not callable(show):
        raise InvalidRequest(f"show is a function of a SessionList, not {show!r}")

    check_synchronous(show)
    return show


@asynccontextmanager
async def show_live(
    poller: Poller, ids: Callable[[], Iterable[str]], show: Show | None
) -> AsyncGenerator[None]:
    """Show how sessions stand, after each look that changed something, until the block ends.

    Nothing that goes wrong here is the block's trouble: it is logged, and nothing more is shown.

    Args:
        poller: looks; who looks on shares its lists with all who wait.
        ids: names the sessions, anew for each look.
        show: shows them; None for a table in the notebook or on the terminal.
    """
    with ExitStack() as stack:
        onlooker = _Onlooker(poller, ids, show or _opened(stack))
        async with open_task_group() as group:
            group.start_soon(onlooker.run)
            try:
                yield
            finally:
                # The look for which the block has waited may not have been shown yet.
                onlooker.catch_up()
                group.cancel_scope.cancel()


def _opened(stack: ExitStack) -> Show:
    try:
        return stack.enter_context(open_display())
    except Exception as error:  # noqa: BLE001  # such as a display that is open already
        logger.warning("the sessions cannot be shown: %r", error)
        return lambda _: None


@final
class _Onlooker:
    """Keeps how each session was seen last, and shows it."""

    def __init__(self, poller: Poller, ids: Callable[[], Iterable[str]], show: Show) -> None:
        self._poller = poller
        self._ids = ids
        self._show = show
        self._sights: dict[str, SessionState] = {}
        self._infos: dict[str, SessionInfo] = {}
        self._noted: Snapshot | None = poller.last
        self._shown: list[tuple[str, str]] = []
        self._has_failed = False

    async def run(self) -> None:
        """Show what each look tells, for as long as that works."""
        try:
            looks = self._poller.join()
            while not self._has_failed:
                look = await looks.next()
                if isinstance(look, Snapshot):
                    await self._take(look)
        except Exception as error:  # noqa: BLE001  # never in the way of the block
            logger.warning("the sessions are no longer looked on: %r", error)

    async def _take(self, look: Snapshot) -> None:
        await map_with_checkpoints(lambda key: self._note(key, look), list(self._ids()))
        self._noted = look
        self._tell()

    def catch_up(self) -> None:
        """Show the last look, if that was not shown."""
        look = self._poller.last
        if look is not None and look is not self._noted:
            for key in self._ids():
                self._note(key, look)
            self._tell()

    def _note(self, key: str, look: Snapshot) -> None:
        sight = self._sights.setdefault(key, SessionState(key))
        info = sight.note(look)
        if info is not None:
            self._infos[key] = info
        elif sight.is_gone and key in self._infos and not self._infos[key].status.is_terminal:
            self._infos[key] = evolve(self._infos[key], status=GONE)

    def _tell(self) -> None:
        state = [(key, str(info.status)) for key, info in self._infos.items()]
        if self._has_failed or state == self._shown:
            return

        self._shown = state
        try:
            self._show(SessionList(self._infos.values()))
        except Exception as error:  # noqa: BLE001  # never in the way of the block
            self._has_failed = True
            logger.warning("the sessions can no longer be shown: %r", error)
