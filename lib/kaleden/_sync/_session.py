"""The client for plain code: every method is that of `AsyncSession`, run in another thread."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TypeVar, final

from kaleden._client._session import AsyncSession
from kaleden._engine._targets import Ids
from kaleden._results._batch import FinishedSession, Outcomes
from kaleden._results._progress import ProgressCallback
from kaleden._sessions._monitor._wait import Until
from kaleden._sessions._scope import OnExit
from kaleden._sync._iterables import drawn, drawn_goal
from kaleden._sync._mirror import mirrors, mirrors_arguments
from kaleden._sync._queries import SyncQueries
from kaleden._sync._scope import SyncScope
from kaleden._sync._streams import SyncLogStream
from kaleden._wire import TERMINAL_STATUSES, SessionInfo, SessionKind, SessionSpec, SessionStatus

T = TypeVar("T")


@final
@mirrors_arguments(
    AsyncSession,
    '    backend: where the work runs: ``"asyncio"``, or ``"trio"`` if that is installed.',
)
class Session(SyncQueries):
    """A client of one Skaha server for plain code: ``with Session(url, token) as session: ...``.

    It does what `AsyncSession` does, in a thread of its own, while the calling thread waits. It
    opens at its first use, if not by ``with``, and closes when nobody has it any more, or at the
    end of the program. Any number of threads may use it at once; together they never have more than
    *concurrency* requests in flight. A notebook or another program with an event loop may use it,
    and its loop stands still meanwhile. After a fork it works in the parent only; the child gets a
    `SessionForked` from every method.

    Ctrl-C ends a call properly: what was begun is given up, and cleaned up as the method's
    arguments say, before KeyboardInterrupt leaves it. A second Ctrl-C leaves at once; what scopes
    and `run` have launched is then in the *ledger*, for `reap`, and a warning of the logger
    ``kaleden`` says how to end it, with a ledger or without.

    Methods over many sessions take one id, an iterable of ids, the `SessionInfo` objects that
    `fetch` returned, or the `Outcomes` of an earlier call. They return `Outcomes`: what failed is
    in there, and only what is wrong with the call as a whole is raised. Methods about one thing
    (`fetch`, `stats`, `images`, ...) raise a `RequestError` if it fails. All that wait take a
    ``timeout``, in seconds for the whole call.

    Iterables are drawn from, and ``progress`` functions called, in the calling thread. An ``until``
    function is called in the session's own thread: it has to be quick, and cannot call the session.
    Errors of all of them come out as themselves.

    A *client* or *transport* is entered and left with the session, in its event loop.
    """

    @mirrors(AsyncSession.create)
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
        call = self._begin(timeout, self._create_grace, makes=True)
        return call.run(
            self._client.create,
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

    @mirrors(AsyncSession.scope)
    def scope(self, *, grace: float = 30.0, on_success: OnExit = "destroy") -> SyncScope:
        self._bridge.open()
        scope = self._client.scope(grace=grace, on_success=on_success)
        return SyncScope(self, self._bridge, scope, grace)

    @mirrors(AsyncSession.run)
    def run(
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
        on_success: OnExit = "destroy",
        on_error: OnExit = "destroy",
        min_started: int | None = None,
        start_timeout: float | None = None,
        grace: float = 30.0,
        progress: ProgressCallback | None = None,
        timeout: float | None = None,
    ) -> Outcomes[FinishedSession]:
        call = self._begin(timeout, grace, makes="release" in {on_success, on_error})
        return call.run(
            self._client.run,
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
            on_success=on_success,
            on_error=on_error,
            min_started=min_started,
            start_timeout=start_timeout,
            grace=grace,
            progress=call.here(progress),
        )

    @mirrors(AsyncSession.wait)
    def wait(
        self,
        ids: Ids,
        until: Until = TERMINAL_STATUSES,
        *,
        pending_timeout: float | None = None,
        progress: ProgressCallback | None = None,
        timeout: float | None = None,
    ) -> Outcomes[SessionInfo]:
        call = self._begin(timeout)
        return call.run(
            self._client.wait,
            drawn(ids),
            call.guarded(drawn_goal(until)),
            pending_timeout=pending_timeout,
            progress=call.here(progress),
        )

    @mirrors(AsyncSession.follow)
    def follow(self, ids: Ids, *, timeout: float | None = None) -> SyncLogStream:
        self._bridge.open()
        keys = drawn(ids)
        return SyncLogStream(self, self._bridge, timeout, lambda _: self._client.follow(keys))

    @mirrors(AsyncSession.reap)
    def reap(
        self,
        path: str | PathLike[str],
        *,
        elsewhere: bool = False,
        timeout: float | None = None,
    ) -> Outcomes[bool]:
        return self._begin(timeout).run(self._client.reap, path, elsewhere=elsewhere)

    @mirrors(AsyncSession.renew)
    def renew(
        self,
        ids: Ids,
        *,
        progress: ProgressCallback | None = None,
        timeout: float | None = None,
    ) -> Outcomes[bool]:
        call = self._begin(timeout)
        return call.run(self._client.renew, drawn(ids), progress=call.here(progress))

    @mirrors(AsyncSession.destroy)
    def destroy(
        self,
        ids: Ids,
        *,
        progress: ProgressCallback | None = None,
        timeout: float | None = None,
    ) -> Outcomes[bool]:
        call = self._begin(timeout)
        return call.run(self._client.destroy, drawn(ids), progress=call.here(progress))

    @mirrors(AsyncSession.destroy_with)
    def destroy_with(
        self,
        prefix: str | re.Pattern[str],
        kind: str | None = SessionKind.HEADLESS,
        status: str | None = SessionStatus.COMPLETED,
        *,
        progress: ProgressCallback | None = None,
        timeout: float | None = None,
    ) -> Outcomes[bool]:
        call = self._begin(timeout)
        told = call.here(progress)
        return call.run(self._client.destroy_with, prefix, kind, status, progress=told)

    @mirrors(AsyncSession.retry_failed)
    def retry_failed(self, outcomes: Outcomes[T], *, timeout: float | None = None) -> Outcomes[T]:
        call = self._begin(timeout, makes=outcomes.operation == "create")
        return call.run(self._client.retry_failed, outcomes)
