"""Ownership in plain code: a ``with`` block, and the sessions that cannot outlive it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self, final

from kaleden._engine._targets import Members
from kaleden._errors import ScopeError
from kaleden._results._batch import Outcomes
from kaleden._results._progress import ProgressCallback
from kaleden._sessions._monitor._live_table import Show
from kaleden._sessions._monitor._wait import Until
from kaleden._sessions._owned_sessions import ScopeStatistics
from kaleden._sessions._scope import Scope
from kaleden._sync._blocking_call import Call
from kaleden._sync._blocking_context import BlockingContext
from kaleden._sync._iterables import drawn_goal, drawn_members
from kaleden._sync._loop_thread import LoopThread
from kaleden._sync._mirror import mirrors
from kaleden._wire import TERMINAL_STATUSES, SessionInfo, SessionKind, SessionSpec


@final
class SyncScope:
    """Owns the sessions that are launched in it: ``with session.scope() as scope: ...``.

    It is a `Scope` in plain code: however the block is left, Ctrl-C included, what is owned is
    destroyed, and verified by a list, within *grace* seconds. If anything could be left, a
    `ScopeError` names it. Any thread may use it while the block is open.
    """

    def __init__(self, session: object, bridge: LoopThread, scope: Scope, grace: float) -> None:
        # As long as somebody has the scope, its session is not forgotten and closed.
        self._session = session
        self._bridge = bridge
        self._scope = scope
        self._block = BlockingContext[Scope](bridge, grace=grace)

    def __enter__(self) -> Self:
        self._block.enter(self._scope)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._block.leave(error)

    @property
    def error(self) -> ScopeError | None:
        """After the block, what may be left; None if nothing."""
        return self._scope.error

    @property
    @mirrors(Scope.is_open)
    def is_open(self) -> bool:
        return self._scope.is_open

    @property
    @mirrors(Scope.ids)
    def ids(self) -> list[str]:
        return self._scope.ids

    @mirrors(Scope.statistics)
    def statistics(self) -> ScopeStatistics:
        return self._scope.statistics()

    @mirrors(Scope.create)
    def create(
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
        timeout: float | None = None,
    ) -> Outcomes[str]:
        call = self._begin(timeout)
        return call.run(
            self._scope.create,
            name,
            image,
            cores=cores,
            ram=ram,
            kind=kind,
            gpu=gpu,
            cmd=cmd,
            args=args,
            env=env,
            replicas=replicas,
            progress=call.here(progress),
        )

    @mirrors(Scope.wait)
    def wait(
        self,
        ids: Members | None = None,
        until: Until = TERMINAL_STATUSES,
        *,
        pending_timeout: float | None = None,
        progress: ProgressCallback | None = None,
        timeout: float | None = None,
    ) -> Outcomes[SessionInfo]:
        call = self._begin(timeout)
        return call.run(
            self._scope.wait,
            None if ids is None else drawn_members(ids),
            call.guarded(drawn_goal(until)),
            pending_timeout=pending_timeout,
            progress=call.here(progress),
        )

    @mirrors(Scope.watch)
    def watch(self, show: Show | None = None) -> AbstractContextManager[None]:
        self._bridge.check()
        block = BlockingContext[None](self._bridge)
        return block.around(self._scope.watch(block.host.guarded(show)))

    @mirrors(Scope.adopt)
    def adopt(self, ids: Members, *, timeout: float | None = None) -> None:
        self._begin(timeout).run(self._scope.adopt, drawn_members(ids))

    @mirrors(Scope.release)
    def release(self, ids: Members, *, timeout: float | None = None) -> None:
        self._begin(timeout).run(self._scope.release, drawn_members(ids))

    def __repr__(self) -> str:
        return repr(self._scope)

    def _begin(self, timeout: float | None) -> Call:
        return Call(self._bridge, timeout)
