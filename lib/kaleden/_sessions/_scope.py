"""Ownership: a block of code, and the sessions that cannot outlive it."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import Final, Literal, Self, TypeAlias, final

import anyio
import anyio.lowlevel
from anyio import AsyncContextManagerMixin

from kaleden._engine._config import Backoff, check_number
from kaleden._engine._targets import Members, read_members
from kaleden._engine._tasks import open_task_group, run_shielded
from kaleden._errors import ConfigurationError, RequestError, ScopeClosed, ScopeError
from kaleden._results._batch import Outcomes
from kaleden._results._progress import ProgressCallback
from kaleden._sessions._components import Components
from kaleden._sessions._launch._destroy import destroy
from kaleden._sessions._launch._launch_request import read_spec, requests_with_tokens
from kaleden._sessions._monitor._live_table import Show, check_show, show_live
from kaleden._sessions._monitor._wait import Until
from kaleden._sessions._owned_sessions import OwnedSessions, ScopeStatistics
from kaleden._wire import TERMINAL_STATUSES, SessionInfo, SessionKind, SessionSpec, check_id

logger = logging.getLogger("kaleden")

OnExit: TypeAlias = Literal["destroy", "release"]
"""What a scope does with its sessions when its block ends."""

_CLEAN_UP_INTERVALS: Final = (0.25, 4.0)
"""Seconds between two rounds of a clean-up: the first interval and the longest."""

_QUIET_SECONDS: Final = 1.0
"""Seconds of a clean-up after which it says what it does, lest somebody interrupts it."""


@final
class Scope(AsyncContextManagerMixin):
    """Owns the sessions that are launched in it: ``async with session.scope() as scope: ...``.

    However the block is left, by its end, an error, a deadline or a cancellation, first no more is
    launched; then the answers to creates that have left are awaited, launches in doubt are looked
    for, and all that is owned is destroyed, and verified by a list. That runs shielded, and takes
    at most *grace* seconds; with a ledger, another process that stopped while it held the file's
    lock can delay it by up to ten seconds more. What was in flight is raised again. If anything
    could be left, a `ScopeError` names it: raised if the block ended well, else put on the
    exception as a note, and kept in `error` and in the log.

    A scope may be used by any task of its client's event loop while its block is open, nested, and
    put on an ``AsyncExitStack``. The names of its sessions end in a token of their own, by which a
    launch whose answer was lost is found.

    Attributes:
        error: after the block, what may be left; None if nothing.
        names: the names that launches were given, without what was put after them.
    """

    def __init__(
        self, components: Components, grace: float, on_success: OnExit, on_error: OnExit
    ) -> None:
        check_number("grace", grace, "seconds", finite=False)
        for name, action in (("on_success", on_success), ("on_error", on_error)):
            if action not in {"destroy", "release"}:
                raise ConfigurationError(f"{name} is 'destroy' or 'release', not {action!r}")

        self.error: ScopeError | None = None
        self.names: set[str] = set()
        self._components = components
        self._grace = grace
        self._on_success = on_success
        self._on_error = on_error
        self._owned = OwnedSessions(components.limits, components.ledger)
        self._calls: set[anyio.CancelScope] = set()
        self._has_ended = False

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[Self]:
        self._components.engine.check()
        async with open_task_group() as group:
            self._owned.group, self._owned.is_open = group, True
            try:
                yield self
            except BaseException as error:
                await self._close(error)
                raise
            await self._close(None)

    # --- what users call -------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether the scope's block is being run."""
        return self._owned.is_open

    @property
    def ids(self) -> list[str]:
        """The ids of the sessions that the scope owns now."""
        return list(self._owned.owned)

    def statistics(self) -> ScopeStatistics:
        """Tell the scope's state now."""
        held = self._owned
        return ScopeStatistics(len(held.owned), len(held.in_flight), len(held.unconfirmed))

    def __repr__(self) -> str:
        state = self.statistics()
        doubts = f", {state.unconfirmed} in doubt" if state.unconfirmed else ""
        closed = "" if self.is_open else " (closed)"
        return f"<Scope owns {state.owned}, {state.launching} launching{doubts}{closed}>"

    async def create(
        self,
        name: str | SessionSpec,
        image: str | None = None,
        cores: float | None = None,
        ram: int | None = None,
        kind: str = SessionKind.HEADLESS,
        gpu: int | None = None,
        cmd: str | None = None,
        args: str | Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        replicas: int = 1,
        *,
        progress: ProgressCallback | None = None,
    ) -> Outcomes[str]:
        """Launch sessions that end with the scope.

        The arguments are those of `AsyncSession.create`; the names may have 54 characters, replica
        numbers included, since nine more are put after them. One specification never becomes two
        sessions.

        Returns:
            The id of each new session, by its name without the token. A failure of kind
            ``unknown_effect`` means that no answer came and that no such session was listed until
            *settle* seconds after the request; the scope looks for it again when it is left.

        Raises:
            InvalidRequest: an argument cannot work; nothing was sent.
            ScopeClosed: the scope's block was left, or not entered.

        Cancellation:
            Nothing more is sent. Creates that have left are awaited in the background, and whatever
            comes of them belongs to the scope.
        """
        parts = {
            "cores": cores,
            "ram": ram,
            "kind": kind,
            "gpus": gpu,
            "cmd": cmd,
            "args": args,
            "env": env or {},
            "replicas": replicas,
        }
        return await self._launch(read_spec(name, image, **parts), progress=progress)

    async def wait(
        self,
        ids: Members | None = None,
        until: Until = TERMINAL_STATUSES,
        *,
        pending_timeout: float | None = None,
        progress: ProgressCallback | None = None,
    ) -> Outcomes[SessionInfo]:
        """Wait for sessions; by default for all that the scope owns now.

        The arguments, what is returned, and what cancellation does are those of
        `AsyncSession.wait`: by default ``ok`` means "all have ended", Failed ones included; to wait
        for success, say ``until="Completed"``.
        """
        keys = self.ids if ids is None else read_members(ids)
        return await self._components.waiter.wait(keys, until, pending_timeout, progress)

    def watch(self, show: Show | None = None) -> AbstractAsyncContextManager[None]:
        """Show how the sessions of the scope stand: ``async with scope.watch(): ...``.

        The table changes in its place, in a notebook or on the terminal (with the extra
        ``progress``); elsewhere lines on standard error tell what changed. Its lists are those of
        all who wait, one every 1 to 15 seconds. What goes wrong with it is only logged.

        Args:
            show: is called with a `SessionList` instead, in the event loop; it has to be quick.

        Raises:
            ScopeClosed: the scope's block was left, or not entered.

        Cancellation:
            The table stays as it is.
        """
        self._check_open()
        return show_live(
            self._components.waiter.sessions, lambda: self._owned.owned, check_show(show)
        )

    async def adopt(self, ids: Members) -> None:
        """Take over sessions that were launched elsewhere: they will end with the scope.

        Raises:
            InvalidRequest: one of them cannot be an id; none was adopted.
            ScopeClosed: the scope's block was left, or not entered.

        Cancellation:
            The sessions are adopted all the same.
        """
        self._check_open()
        for key in [check_id(key) for key in read_members(ids)]:
            self._owned.owned.setdefault(key, key)
        await anyio.lowlevel.checkpoint()

    async def release(self, ids: Members) -> None:
        """Let sessions outlive the scope, on purpose: they are the caller's to end.

        Raises:
            ScopeClosed: the scope's block was left; they are being ended.

        Cancellation:
            The sessions are released all the same.
        """
        self._check_open()
        await self._owned.release(read_members(ids))
        await anyio.lowlevel.checkpoint()

    # --- inside ----------------------------------------------------------------------------------

    async def _launch(
        self,
        spec: SessionSpec,
        keys: Collection[str] | None = None,
        progress: ProgressCallback | None = None,
    ) -> Outcomes[str]:
        """Launch *spec*, or only the replicas named by *keys*."""
        self._check_open()
        self.names.add(spec.name)
        tickets = [
            ticket for ticket in requests_with_tokens(spec) if keys is None or ticket.key in keys
        ]

        async def again(failed: Sequence[str]) -> Outcomes[str]:
            return await self._launch(spec, failed)

        with anyio.CancelScope() as call:
            self._calls.add(call)
            try:
                outcomes = await self._components.launcher.launch(tickets, self._owned, progress)
                return Outcomes("create", outcomes, again=again)
            finally:
                self._calls.discard(call)

        raise ScopeClosed("the scope was left while it launched")

    def _check_open(self) -> None:
        if not self.is_open:
            ended, unused = "has ended", "was not entered: use it inside its `with` block"
            raise ScopeClosed(f"this scope {ended if self._has_ended else unused}")

    async def _close(self, error: BaseException | None) -> None:
        self._owned.is_open, self._has_ended = False, True
        for call in self._calls:
            call.cancel()
        for flight in tuple(self._owned.in_flight):
            # A third, so that time is left to end what the answers tell of.
            flight.cancel_after(min(self._components.limits.create_grace, self._grace / 3))

        action = self._on_success if error is None else self._on_error
        clean_up = self._destroy_all if action == "destroy" else partial(self._release_all, error)
        trouble: Exception | None = None
        try:
            await run_shielded(clean_up, self._grace)
        except Exception as raised:  # noqa: BLE001  # never in the place of what was in flight
            trouble = raised
            logger.error("the clean-up of a scope failed: %r", raised)  # noqa: TRY400
        except BaseException as interruption:
            self._report_survivors(interruption, None)
            raise
        self._report_survivors(error, trouble)

    def _report_survivors(self, error: BaseException | None, trouble: Exception | None) -> None:
        """Name what may be left; never in the place of what was in flight."""
        survivors, launches = tuple(self._owned.owned), self._owned.unconfirmed_names()
        if not survivors and not launches:
            return

        self.error = ScopeError(survivors, launches)
        logger.error("%s", self.error)
        if error is None:
            raise self.error from trouble

        error.add_note(str(self.error))

    async def _release_all(self, error: BaseException | None) -> None:
        """Release every session; name those of which an exception may have lost the ids."""
        released = self.ids
        await self._owned.release(released)
        await self._owned.wait_in_flight()
        released += self.ids
        await self._owned.release(self.ids)
        # The outcomes of these launches have reported that they are unknown.
        unconfirmed = await self._owned.release_unconfirmed()
        if error is not None and (released or unconfirmed):
            message = f"the scope released the sessions {released}"
            if unconfirmed:
                message += f", and launches that may have made a session: {unconfirmed}"
            logger.warning("%s", message)
            error.add_note(message)

    async def _destroy_all(self) -> None:
        """End everything, again and again until a list shows that it is gone."""
        async with open_task_group() as group:
            group.start_soon(self._log_if_slow)
            backoff = Backoff(*_CLEAN_UP_INTERVALS)
            while not await self._destroy_once():  # noqa: ASYNC110  # the server sends no event
                await anyio.sleep(backoff.next())
            group.cancel_scope.cancel()

    async def _log_if_slow(self) -> None:
        await anyio.sleep(_QUIET_SECONDS)
        state = self.statistics()
        count = state.owned + state.unconfirmed + state.launching
        logger.warning("ending %d sessions, up to %g seconds", count, self._grace)

    async def _destroy_once(self) -> bool:
        """Destroy what is there; tell whether that is all."""
        rooms, held = self._components, self._owned
        await held.wait_in_flight()
        if held.unconfirmed:
            await self._reconcile(anyio.current_time())
        if held.owned:
            began = anyio.current_time()
            outcomes = await destroy(
                rooms.engine, rooms.sessions, rooms.limits, self.ids, retry=False
            )
            if gone := outcomes.successes:
                # The list that proves it shows by names what no answer told of.
                await self._reconcile(began)
                await held.release(gone)
        return held.is_empty

    async def _reconcile(self, now: float) -> None:
        """Look for what nobody knows the ids of, in a list that began at *now* or later."""
        with suppress(RequestError):
            snapshot = await self._components.sessions.since(now)
            await self._owned.reconcile(snapshot.sessions, now)
