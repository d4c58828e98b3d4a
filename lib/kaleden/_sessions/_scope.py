"""Scopes: blocks of code that own sessions and destroy them at the end."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Final, Literal, Self, TypeAlias, final

import anyio
import anyio.lowlevel
from anyio import AsyncContextManagerMixin
from anyio.abc import TaskGroup

from kaleden._engine._config import Backoff, check_number
from kaleden._engine._targets import Members, as_keys, read_members
from kaleden._engine._tasks import open_task_group, run_shielded
from kaleden._errors import ConfigurationError, ScopeClosed, ScopeError
from kaleden._results._batch import Outcomes
from kaleden._results._progress import ProgressCallback
from kaleden._sessions._components import Components
from kaleden._sessions._launch._deletion import INTERVALS, Deletion
from kaleden._sessions._launch._launch_request import build_requests_with_tokens, read_spec
from kaleden._sessions._monitor._history import Snapshot
from kaleden._sessions._monitor._live_table import Show, check_show, show_live
from kaleden._sessions._monitor._wait import Until
from kaleden._sessions._owned_sessions import OwnedSessions, ScopeStatistics
from kaleden._wire import TERMINAL_STATUSES, SessionInfo, SessionKind, SessionSpec, check_id

logger = logging.getLogger("kaleden")

OnExit: TypeAlias = Literal["destroy", "release"]
"""The action on the sessions of a scope when its block ends."""

_LIST_BEFORE_TIMEOUT: Final = 10.0
"""Seconds, within a quarter of the grace, for which a slow list delays the first deletes."""

_QUIET_SECONDS: Final = 2.0
"""Seconds after which a clean-up logs its progress, so that the user does not interrupt it."""


def check_on_exit(name: str, action: object) -> None:
    """Check an argument that is an `OnExit`.

    Raises:
        ConfigurationError: it is not one.
    """
    if action not in {"destroy", "release"}:
        raise ConfigurationError(f"{name} is 'destroy' or 'release', not {action!r}")


@final
class Scope(AsyncContextManagerMixin):
    """Owns the sessions that are launched in it: ``async with session.scope() as scope: ...``.

    When the block ends, whether normally, by an exception, a deadline or a cancellation, the scope
    cleans up in this order:

    1. It sends no more creates.
    2. It waits for the responses to creates in flight.
    3. It looks for the sessions of unconfirmed launches, which are those of unknown outcome.
    4. It destroys all owned sessions, and verifies with lists that they are gone. It repeats
       deletes that fail or have no effect.

    With ``on_success="release"`` or ``on_error="release"``, it releases the sessions instead of
    steps 3 and 4 if the block ends normally or with an exception, respectively.

    The clean-up is shielded from cancellation and takes at most *grace* seconds. With a ledger it
    can take up to ten seconds more, if another process was stopped while it held the lock of the
    file. Afterwards the exception of the block is raised again, if there was one.

    If sessions may be left, the scope makes a `ScopeError` that names them, logs it and stores it
    in `error`. It raises this error if the block ended normally; otherwise it adds the message as a
    note to the exception of the block. The names of launches of unknown outcome that no list has
    shown in time are logged as a warning; a ledger keeps them.

    While its block is open, a scope can be used by any task of its client's event loop. Scopes can
    be nested, and entered on an ``AsyncExitStack``. The name of each session ends in a unique
    token, by which the scope finds the session of a launch whose response was lost.

    Attributes:
        error: after the block, the sessions and launches that may be left; None if there are none.
        names: the names that were given to `create`, without replica numbers and tokens.
    """

    def __init__(
        self, components: Components, grace: float, on_success: OnExit, on_error: OnExit
    ) -> None:
        check_number("grace", grace, "seconds", finite=False)
        check_on_exit("on_success", on_success)
        check_on_exit("on_error", on_error)

        self.error: ScopeError | None = None
        self.names: set[str] = set()
        self._components = components
        self._grace = grace
        self._on_success = on_success
        self._on_error = on_error
        self._owned = OwnedSessions(
            components.limits, components.sessions.history, components.ledger
        )
        self._deletion = Deletion(
            components.engine, components.sessions, components.limits, is_clean_up=True
        )
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

    # --- public ----------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether the block of the scope is running."""
        return self._owned.is_open

    @property
    def ids(self) -> list[str]:
        """The ids of the sessions that the scope owns now."""
        return list(self._owned.owned)

    def statistics(self) -> ScopeStatistics:
        """Return the numbers of owned, launching and unconfirmed sessions."""
        sessions = self._owned
        return ScopeStatistics(
            len(sessions.owned), len(sessions.in_flight), len(sessions.unconfirmed)
        )

    def __repr__(self) -> str:
        state = self.statistics()
        unconfirmed = f", {state.unconfirmed} unconfirmed" if state.unconfirmed else ""
        closed = "" if self.is_open else " (closed)"
        return f"<Scope owns {state.owned}, {state.launching} launching{unconfirmed}{closed}>"

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
        """Launch sessions that are destroyed when the scope ends.

        The arguments are those of `AsyncSession.create`. A name can have up to 54 characters,
        including the replica number, because the scope appends nine characters. Each replica is
        launched at most once: a create is never repeated after it may have reached the server.

        Returns:
            The ids of the new sessions, by name without the token. A failure of kind
            ``unknown_effect`` means that no usable response arrived, and that no list showed the
            session within *settle* seconds after the request. The scope looks for it again during
            its clean-up.

        Raises:
            InvalidRequest: an argument is invalid; nothing was sent.
            ScopeClosed: the block of the scope has ended, or was not entered.

        Cancellation:
            Nothing more is sent. The scope awaits creates in flight in the background and owns the
            sessions that they make.
        """
        spec = read_spec(name, image, cores, ram, kind, gpu, cmd, args, env, replicas)
        return await self._launch(spec, progress=progress)

    async def wait(
        self,
        ids: Members | None = None,
        until: Until = TERMINAL_STATUSES,
        *,
        pending_timeout: float | None = None,
        progress: ProgressCallback | None = None,
    ) -> Outcomes[SessionInfo]:
        """Wait for sessions, by default for all that the scope owns now.

        The arguments and the returned value are those of `AsyncSession.wait`. By default ``ok``
        means that all sessions have ended, including those that ended as Failed. To wait for
        success, pass ``until="Completed"``.

        Cancellation:
            Nothing changes on the server, and other waits continue.
        """
        keys = self.ids if ids is None else as_keys(ids)
        return await self._components.waiter.wait(keys, until, pending_timeout, progress)

    def watch(self, show: Show | None = None) -> AbstractAsyncContextManager[None]:
        """Show a live table of the sessions of the scope: ``async with scope.watch(): ...``.

        In a notebook, or on a terminal with the extra ``progress``, the table is updated in place.
        Elsewhere each change is printed as a line on standard error. The table uses the same lists
        as all waits of the client, one every 1 to 15 seconds. Errors of the display are only
        logged.

        Args:
            show: called with a `SessionList` after each change, in place of the table. It runs in
                the event loop, so it must return quickly.

        Raises:
            InvalidRequest: *show* is not a plain function.
            ScopeClosed: the block of the scope has ended, or was not entered.

        Cancellation:
            The table stays as it was shown last.
        """
        self._check_open()
        return show_live(
            self._components.waiter.sessions, lambda: self._owned.owned, check_show(show)
        )

    async def adopt(self, ids: Members) -> None:
        """Own sessions that were launched elsewhere, so that the scope destroys them at its end.

        Args:
            ids: an id, several ids, or sessions as an earlier call returned them.

        Raises:
            InvalidRequest: an id is invalid; no session was adopted.
            ScopeClosed: the block of the scope has ended, or was not entered.

        Cancellation:
            The sessions are adopted before the cancellation is raised.
        """
        self._check_open()
        for key in [check_id(key) for key in read_members(ids)]:
            self._components.launcher.record_created(key)
            self._owned.owned.setdefault(key, key)
        await anyio.lowlevel.checkpoint()

    async def release(self, ids: Members | None = None, *, reapable: bool = False) -> None:
        """Release sessions, so that they outlive the scope; the caller has to destroy them.

        Ids of sessions that the scope does not own are ignored.

        Args:
            ids: an id, several ids, or sessions as an earlier call returned them; by default all
                that the scope owns now, and those that it may still find.
            reapable: whether the ledger, if there is one, keeps them, so that `reap` ends them
                after this process has ended.

        Raises:
            ScopeClosed: the block of the scope has ended, or was not entered.

        Cancellation:
            The sessions are released before the cancellation is raised.
        """
        self._check_open()
        keys = self.ids if ids is None else read_members(ids)
        if reapable:
            self._owned.abandon(keys)
        else:
            await self._owned.release(keys)
        if ids is None:
            await self._owned.release_unconfirmed(reapable=reapable)
        await anyio.lowlevel.checkpoint()

    # --- internal --------------------------------------------------------------------------------

    async def _launch(
        self,
        spec: SessionSpec,
        keys: Collection[str] | None = None,
        progress: ProgressCallback | None = None,
    ) -> Outcomes[str]:
        """Launch *spec*, or only the replicas named by *keys*."""
        self._check_open()
        self.names.add(spec.name)
        requests = [
            request
            for request in build_requests_with_tokens(spec)
            if keys is None or request.key in keys
        ]

        async def again(failed: Sequence[str]) -> Outcomes[str]:
            return await self._launch(spec, failed)

        with anyio.CancelScope() as call:
            self._calls.add(call)
            try:
                outcomes = await self._components.launcher.launch(requests, self._owned, progress)
                return Outcomes("create", outcomes, again=again)
            finally:
                self._calls.discard(call)

        raise ScopeClosed("the block of the scope ended during the launch")

    def _check_open(self) -> None:
        if not self.is_open:
            ended, unused = "has ended", "was not entered: use it inside its `with` block"
            raise ScopeClosed(f"this scope {ended if self._has_ended else unused}")

    async def _close(self, error: BaseException | None) -> None:
        self._owned.is_open, self._has_ended = False, True
        for call in self._calls:
            call.cancel()
        for create in tuple(self._owned.in_flight):
            # At most a third of the grace period; the rest is for deleting the sessions that those
            # responses report.
            create.cancel_after(min(self._components.limits.create_grace, self._grace / 3))

        action = self._on_success if error is None else self._on_error
        clean_up = self._destroy_all if action == "destroy" else partial(self._release_all, error)
        failure: Exception | None = None
        try:
            await run_shielded(clean_up, self._grace)
        except Exception as raised:  # noqa: BLE001  # must not replace the exception of the block
            failure = raised
            logger.error("the clean-up of a scope failed: %r", raised)  # noqa: TRY400
        except BaseException as interruption:
            self._report_survivors(interruption, None)
            raise
        self._report_survivors(error, failure)

    def _report_survivors(self, error: BaseException | None, failure: Exception | None) -> None:
        """Report sessions that may be left, without replacing the exception of the block."""
        survivors, launches = tuple(self._owned.owned), self._owned.unconfirmed_names()
        if not survivors and not launches:
            return

        failures = {key: reason for key in survivors if (reason := self._deletion.explain(key))}
        self.error = ScopeError(survivors, launches, failures)
        logger.error("%s", self.error)
        if error is None:
            raise self.error from failure

        error.add_note(str(self.error))

    async def _release_all(self, error: BaseException | None) -> None:
        """Release every session; report the ids and names that the caller may not have."""
        released, unconfirmed = self.ids, list[str]()
        if error is not None:
            _report_released(released, unconfirmed, error)
        await self._owned.release(released)
        try:
            await self._owned.wait_in_flight()
        finally:
            # These creates were in flight when the block ended.
            released, unconfirmed = self.ids, list(self._owned.unconfirmed)
            if released or (unconfirmed and error is not None):
                _report_released(released, unconfirmed, error)
        await self._owned.release(released)
        await self._owned.release_unconfirmed()

    async def _destroy_all(self) -> None:
        """Destroy everything, with repeated rounds until a list shows that it is gone."""
        async with open_task_group() as group:
            group.start_soon(self._log_if_slow)
            await self._owned.wait_in_flight()
            await self._list_before(group)
            backoff = Backoff(*INTERVALS)
            try:
                while not await self._destroy_once():
                    # A list may have shown sessions of launches without a response.
                    if self._owned.owned.keys() <= self._deletion.targets.keys():
                        await anyio.sleep_until(self._deletion.compute_next(backoff))
            finally:
                with anyio.CancelScope(shield=True):
                    await self._owned.release(self._deletion.list_gone())
            group.cancel_scope.cancel()

    async def _log_if_slow(self) -> None:
        await anyio.sleep(_QUIET_SECONDS)
        state = self.statistics()
        count = state.owned + state.unconfirmed + state.launching
        logger.warning("ending %d sessions, up to %g seconds", count, self._grace)

    async def _list_before(self, group: TaskGroup) -> None:
        """List the sessions before the deletes, if any session has not been listed so far.

        Their names show whether a response to a create had the id of another session. A slow list
        continues beside the deletes, in the task group.
        """
        sessions = self._owned
        await sessions.disown_others()
        if not sessions.unconfirmed and not self._deletion.needs_list(sessions.owned):
            return

        listed = anyio.Event()
        group.start_soon(self._list_names, listed)
        with anyio.move_on_after(min(_LIST_BEFORE_TIMEOUT, self._grace / 4)):
            await listed.wait()
        listed.set()

    async def _list_names(self, listed: anyio.Event) -> None:
        """List the sessions until a list is not empty, and set *listed*, or until it is set."""
        backoff = Backoff(*INTERVALS)
        while not listed.is_set():
            snapshot = await self._deletion.list_before()
            if snapshot is not None:
                await self._reconcile(snapshot)
                if snapshot.sessions or not self._owned.owned:
                    listed.set()
            if not listed.is_set():
                await anyio.sleep(backoff.next())

    async def _destroy_once(self) -> bool:
        """Destroy the sessions that are known now; return whether nothing is left."""
        sessions, deletion = self._owned, self._deletion
        await sessions.wait_in_flight()
        if not self._has_left:
            return True

        new = [key for key in sessions.owned if key not in deletion.targets]
        await deletion.send(new + deletion.find_ineffective())
        snapshot = await deletion.verify()
        if snapshot is not None:
            # The list also shows, by name, sessions that no response has reported.
            await self._reconcile(snapshot)
        return not self._has_left

    @property
    def _has_left(self) -> bool:
        """Whether a session may be left that another round can end."""
        sessions, deletion = self._owned, self._deletion
        is_new = sessions.owned.keys() - deletion.targets.keys()
        return bool(is_new or deletion.pending or sessions.unconfirmed or sessions.in_flight)

    async def _reconcile(self, snapshot: Snapshot) -> None:
        await self._owned.reconcile(snapshot)
        self._deletion.keep(self._owned.owned)


def get_owned_sessions(scope: Scope) -> OwnedSessions:
    """Return the owned sessions of a scope, for other modules of this library."""
    return scope._owned  # pyright: ignore[reportPrivateUsage]  # of this module


def _report_released(
    released: list[str], unconfirmed: list[str], error: BaseException | None
) -> None:
    """Log the sessions that a scope has released, and note them on the exception that ended it."""
    parts: list[str] = []
    if released:
        parts.append(f"the sessions {released}")
    if unconfirmed:
        parts.append(f"launches that may have made a session: {unconfirmed}")
    if not parts:
        return

    message = f"the scope released {', and '.join(parts)}"
    logger.warning("%s", message)
    if error is not None:
        error.add_note(message)
