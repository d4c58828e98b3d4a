"""Live tables of the sessions of a scope, updated until a block ends."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from typing import TypeAlias, final

from attrs import evolve

from kaleden._engine._tasks import map_with_checkpoints, open_task_group
from kaleden._errors import InvalidRequest
from kaleden._results._progress import check_synchronous
from kaleden._results._session_list import SessionList
from kaleden._results._tables import open_display
from kaleden._sessions._monitor._history import SessionState, Snapshot
from kaleden._sessions._monitor._poller import Poller
from kaleden._wire import SessionInfo, SessionStatus

logger = logging.getLogger("kaleden")

Show: TypeAlias = Callable[[SessionList], object]
"""A function that shows sessions with their statuses."""

GONE = SessionStatus("gone")
"""The status shown for a session that is no longer listed, and had not ended."""


def check_show(show: Show | None) -> Show | None:
    """Check that *show* is None or a plain function, and return it.

    Raises:
        InvalidRequest: it is not callable, or it is asynchronous.
    """
    if show is not None and not callable(show):
        raise InvalidRequest(f"show is a function of a SessionList, not {show!r}")

    check_synchronous(show)
    return show


@asynccontextmanager
async def show_live(
    poller: Poller, ids: Callable[[], Iterable[str]], show: Show | None
) -> AsyncGenerator[None]:
    """Show sessions after each poll that shows a change, until the block ends.

    Errors never reach the block. They are logged, and nothing more is shown.

    Args:
        poller: polls the sessions; its lists are shared with all waits.
        ids: returns the ids of the sessions; called for each poll.
        show: shows the sessions; None for a table in the notebook or on the terminal.
    """
    with ExitStack() as stack:
        view = _LiveView(poller, ids, show or _open_default(stack))
        async with open_task_group() as group:
            group.start_soon(view.run)
            try:
                yield
            finally:
                # The last list, for which the block has waited, may not have been shown yet.
                view.catch_up()
                group.cancel_scope.cancel()


def _open_default(stack: ExitStack) -> Show:
    try:
        return stack.enter_context(open_display())
    except Exception as error:  # noqa: BLE001  # such as a display that is already open
        logger.warning("the sessions cannot be shown: %r", error)
        return lambda _: None


@final
class _LiveView:
    """Keeps the last known state of each session, and shows it."""

    def __init__(self, poller: Poller, ids: Callable[[], Iterable[str]], show: Show) -> None:
        self._poller = poller
        self._ids = ids
        self._show = show
        self._states: dict[str, SessionState] = {}
        self._infos: dict[str, SessionInfo] = {}
        self._last: Snapshot | None = poller.last
        self._shown: list[tuple[str, str]] = []
        self._has_failed = False

    async def run(self) -> None:
        """Show each change, until showing fails."""
        try:
            subscription = self._poller.subscribe()
            while not self._has_failed:
                snapshot = await subscription.next()
                if isinstance(snapshot, Snapshot):
                    update = partial(self._update, snapshot=snapshot)
                    await map_with_checkpoints(update, list(self._ids()))
                    self._last = snapshot
                    self._show_changes()
        except Exception as error:  # noqa: BLE001  # must not disturb the block
            logger.warning("the sessions are no longer polled for their table: %r", error)

    def catch_up(self) -> None:
        """Show the last list, if it was not shown."""
        snapshot = self._poller.last
        if snapshot is not None and snapshot is not self._last:
            for key in self._ids():
                self._update(key, snapshot)
            self._show_changes()

    def _update(self, key: str, snapshot: Snapshot) -> None:
        state = self._states.get(key)
        if state is None:
            state = self._states[key] = self._poller.new_state(key)
        info = state.update(snapshot)
        if info is not None:
            self._infos[key] = info
        elif state.is_gone and key in self._infos and not self._infos[key].status.is_terminal:
            self._infos[key] = evolve(self._infos[key], status=GONE)

    def _show_changes(self) -> None:
        state = [(key, str(info.status)) for key, info in self._infos.items()]
        if self._has_failed or state == self._shown:
            return

        self._shown = state
        try:
            self._show(SessionList(self._infos.values()))
        except Exception as error:  # noqa: BLE001  # must not disturb the block
            self._has_failed = True
            logger.warning("the sessions can no longer be shown: %r", error)
