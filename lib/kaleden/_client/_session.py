"""The client: every operation is a method that delegates."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TypeVar, final

from kaleden._client._queries import Queries
from kaleden._engine import _operations
from kaleden._engine._operations import Ids, as_keys
from kaleden._results._batch import FinishedSession, Outcomes
from kaleden._results._progress import ProgressCallback
from kaleden._sessions._launch._destroy import chooser, destroy
from kaleden._sessions._launch._launch_request import read_spec
from kaleden._sessions._launch._unowned import launch_plain
from kaleden._sessions._reap import reap
from kaleden._sessions._run import read_start_rule, run
from kaleden._sessions._scope import OnSuccess, Scope
from kaleden._wire import (
    SessionKind,
    SessionSpec,
    SessionStatus,
)

T = TypeVar("T")


@final
class AsyncSession(Queries):
    """A client of one Skaha server: ``async with AsyncSession(url, token) as session: ...``.

    It works the same under asyncio and trio, and belongs to the event loop in which it was entered.
    Any number of tasks may use it at once; together they never have more than *concurrency*
    requests in flight.

    Methods over many sessions take one id, an iterable or asynchronous iterable of ids, the
    `SessionInfo` objects that `fetch` returned, or the `Outcomes` of an earlier call. They return
    `Outcomes`: what failed is in there, and only what is wrong with the call as a whole is raised.
    Methods about one thing (`fetch`, `stats`, `images`, ...) raise a `RequestError` if it fails.
    There is no ``timeout=`` on any of them: put the call under ``anyio.fail_after``.

    Without arguments the server and the login are looked for: first in ``CANFAR_URL`` and
    ``CANFAR_TOKEN`` or ``CANFAR_CERTIFICATE``, then in what ``canfar login`` has saved
    (``~/.canfar/config.yaml``), then in ``~/.ssl/cadcproxy.pem``, which is for CANFAR itself. Each
    may be found in another place, but a login goes to the server that its own place names, and to
    no other. `describe` tells what was found, and where. Files are read when the client is made.

    Args:
        url: the server's URL, with or without the API version: ``https://ws-uv.canfar.net/skaha``.
        token: a bearer token, or a function, plain or async, that gives one. It is called when the
            first is needed, and when the server has refused the last one (401); a plain one in a
            thread. Where nothing is given and nothing found, the server is asked anonymously.
        server: the name of a saved server, in place of *url*, with the login saved for it.
        certificate: the path of an X.509 proxy certificate: a PEM file with the certificate, its
            key, and its chain. It is read again when it changes. Where there is a token too, the
            token is used.
        auth: an ``httpx.Auth``, in place of *token* and *certificate*. It sees each request, which
            then goes through httpx.
        client: an ``httpx.AsyncClient`` or ``httpx2.AsyncClient``, in place of all these; *url* is
            its ``base_url`` unless given. All requests go through it, with its own headers and
            auth, but with the times given here. The caller closes it. It takes a truncated reply
            over TLS as complete, unless its transport is a `kaleden.http.AnyioTransport`.
        registry: user and secret for images of a private registry; they are sent with creates only.
            By default those saved with the saved server, if it is that.
        proxy: the URL of a proxy: http, https or, with httpx's extra, socks5. By default that of
            ``HTTPS_PROXY``, ``HTTP_PROXY`` or ``ALL_PROXY``, unless ``NO_PROXY`` names the server,
            or it is on this machine.
        ssl_context: what connections over https are made with, as it is; by default one that trusts
            the authorities of ``SSL_CERT_FILE`` and ``SSL_CERT_DIR``, or else Mozilla's. Where a
            context has `ssl.OP_IGNORE_UNEXPECTED_EOF` set, as Python up to 3.11.2 makes it, a
            truncated reply can be taken as complete: clear it in yours.
        version: the API version, where the URL names none.
        timeout: seconds for one attempt of a request, from its turn to the last byte of the reply;
            by default ``CANFAR_TIMEOUT``, or else 30.
        create_timeout: the same for a create; a busy server takes 60 to 90 seconds for one.
        concurrency: requests in flight at once; by default ``CANFAR_CONCURRENCY``, or else 32.
        create_concurrency: creates in flight at once, within *concurrency*.
        settle: seconds in which a session whose create was not answered is looked for in lists.
        create_grace: seconds that a create whose caller was cancelled has for its answer.
        adaptive: whether fewer than *concurrency* are in flight while the server is overloaded:
            after HTTP 429 and 503 and time-outs; down to one at a time, and back up as it recovers.
        max_body: bytes of one reply, at most, so that no server can fill the memory; by default
            64 MiB. Only long logs come near. A reply that is longer is a failure of kind
            ``protocol``, which is not tried again.
        retry: when and how often what failed is tried again; None for never.
        ledger: a file in which scopes and `run` write down what they launch before they launch it,
            so that `reap` can end what a killed process left; None for none.
        transport: what carries the requests, in place of all that says where and who; the caller
            opens and closes it.

    Raises:
        ConfigurationError: no server is named, or something that was given or found cannot be used,
            such as a certificate that has expired; the message says what to do. Nothing was sent.
            A certificate is looked at again when the client is entered.
    """

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
        """Launch sessions.

        Everything is checked here first; what the server would silently drop or mangle is refused.
        Each replica is one request, at most *create_concurrency* of them at once, and none is ever
        sent twice. The sessions are nobody's but the caller's: `scope` and `run` launch sessions
        that cannot be forgotten.

        The names are sent as they are, so a launch whose answer is lost can be told only by what is
        new: one list before the launch, and lists after it. If just one session of that name has
        come, it is taken for the lost one; somebody else who launched the same name as the same
        user at that moment would be mistaken for it.

        Args:
            name: the name, lower case; with more than one replica, ``-1``, ``-2``, ... are put
                after it. Or a `SessionSpec`, which says all of this by itself.
            image: the container image, ``host/project/name:tag``.
            cores: CPU cores; None together with *ram* lets the session use what is free.
            ram: memory in GiB.
            kind: what the session is for.
            gpu: number of GPUs.
            cmd: the program to run, one word; headless sessions only, as are *args* and *env*.
            args: its arguments, each without spaces.
            env: environment variables. Each replica also gets its number, from 1, as ``REPLICA_ID``
                and their count as ``REPLICA_COUNT``; `kaleden.distributed` splits work by them.
            replicas: how many sessions to launch.
            progress: is called with a `ProgressUpdate` after each launch.

        Returns:
            The id of each new session, by its name, in the order of the replicas. A failure of kind
            ``unknown_effect`` means that no usable answer came, and no such session was listed
            until *settle* seconds later: it may yet appear. All other failures made no session.

        Raises:
            InvalidRequest: an argument cannot work; nothing was sent.
            Exception: only what *progress* raised; what holds is what holds after a cancellation.

        Cancellation:
            Nothing more is sent. Creates on their way have *create_grace* seconds more for their
            answers. Sessions that were created stay, and are the caller's to end: a warning of the
            logger ``kaleden`` names them, and those that may yet appear.
        """
        spec = read_spec(
            name,
            image,
            cores=cores,
            ram=ram,
            kind=kind,
            gpus=gpu,
            cmd=cmd,
            args=args,
            env=env or {},
            replicas=replicas,
        )
        return await launch_plain(self._rooms.launcher, spec, progress=progress)

    def scope(self, *, grace: float = 30.0, on_success: OnSuccess = "destroy") -> Scope:
        """Make a block that owns what is launched in it: ``async with session.scope() as scope``.

        Args:
            grace: seconds that leaving the block may take, at most, to end what it owns.
            on_success: ``"destroy"`` ends the sessions also if the block ended well; ``"release"``
                lets them live then, and ends them only on an error or a cancellation.

        Returns:
            A `Scope`, to be entered.
        """
        scope = Scope(self._rooms, grace, on_success)
        self._scopes[id(scope)] = scope
        return scope

    async def run(
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
        keep: bool = False,
        min_started: int | None = None,
        start_timeout: float | None = None,
        grace: float = 30.0,
        progress: ProgressCallback | None = None,
    ) -> Outcomes[FinishedSession]:
        """Launch sessions, wait for their ends, collect what they leave, and clean up.

        It is a scope around a launch and a wait; each log is read as soon as its session has ended,
        since headless sessions are forgotten an hour later. The arguments up to *replicas* are
        those of `Scope.create`.

        Args:
            name: as of `Scope.create`, like the arguments after it, up to *replicas*.
            image: the container image.
            cores: CPU cores.
            ram: memory in GiB.
            kind: what the sessions are for.
            gpu: number of GPUs.
            cmd: the program to run.
            args: its arguments.
            env: environment variables.
            replicas: how many sessions to launch.
            keep: leave the sessions if all goes well, instead of destroying them.
            min_started: give up unless so many have started by *start_timeout*.
            start_timeout: seconds from the launch, for *min_started*.
            grace: seconds that the clean-up may take.
            progress: is called with a `ProgressUpdate` of the launches, and then of the sessions by
                status.

        Returns:
            For each replica, in order and by its name, its `FinishedSession`: how it ended, its log
            and events. A failure of kind ``session_failed``, with the tail of its log, for one that
            ended as Failed; ``pending_timeout`` for those given up; and what `Scope.create` and
            `wait` may fail of.

        Raises:
            InvalidRequest: an argument cannot work; nothing was sent.
            ScopeError: the clean-up could not end everything.

        Cancellation:
            All the sessions are ended, within *grace* seconds, before it is raised again.
        """
        spec = read_spec(
            name,
            image,
            cores=cores,
            ram=ram,
            kind=kind,
            gpus=gpu,
            cmd=cmd,
            args=args,
            env=env or {},
            replicas=replicas,
        )
        start = read_start_rule(spec, min_started, start_timeout)
        async with self.scope(grace=grace, on_success="release" if keep else "destroy") as scope:
            return await run(self._rooms, scope, spec, start, progress)

    async def reap(
        self, path: str | PathLike[str], *, elsewhere: bool = False, settle: float | None = None
    ) -> Outcomes[bool]:
        """End the sessions that dead processes left, by the ledger in which they wrote them down.

        Use the account that launched them: the server shows nobody else's sessions, so to another
        they look ended. It may take *settle* seconds, as long as a lost launch may yet appear.

        Only what owners launched on this server that are certainly gone is touched: a process of
        this machine that has ended, or an earlier boot of it.

        Args:
            path: the ledger, as given to ``AsyncSession(ledger=...)``.
            elsewhere: end also what owners on other machines left, who may be at work.
            settle: seconds after its launch for which a session may yet appear; by default
                *create_timeout*.

        Returns:
            As of `destroy`, for the sessions that were left; by its name for a launch of which no
            id is known and no session was found.

        Raises:
            LedgerError: the file cannot be read.

        Cancellation:
            What was not ended stays in the ledger, for the next time.
        """
        rooms = self._rooms
        return await reap(
            rooms.engine,
            rooms.sessions,
            rooms.limits,
            path,
            self._where,
            elsewhere=elsewhere,
            settle=settle,
        )

    async def renew(self, ids: Ids, *, progress: ProgressCallback | None = None) -> Outcomes[bool]:
        """Put off the expiry of each session, as far as the server's own rules allow.

        The server answers without the new time; read ``expiry_time`` again with `info`.

        Args:
            ids: the sessions.
            progress: is called with a `ProgressUpdate` after each answer.

        Returns:
            True for each session that was renewed; a failure for one that is not active.

        Cancellation:
            Requests on their way are given up; the server may have renewed their sessions all the
            same.
        """
        return await self._engine.collect(_operations.renew(self._limits), as_keys(ids), progress)

    async def destroy(
        self, ids: Ids, *, progress: ProgressCallback | None = None
    ) -> Outcomes[bool]:
        """End sessions, and make sure that they ended.

        The server answers every delete with success, also when it failed. So after the deletes one
        list is asked for, and a session counts as destroyed only if that shows it absent or
        terminating.

        Args:
            ids: the sessions.
            progress: is called with a `ProgressUpdate` after each answer, and once the list has
                told.

        Returns:
            True for each session that is gone, or was never there; a failure of kind
            ``not_destroyed`` for each that is still listed, or if no list could be had.

        Cancellation:
            Requests on their way are given up; any of the sessions may be destroyed or not. Calling
            it again with the same ids is safe.
        """
        return await destroy(
            self._engine, self._rooms.sessions, self._limits, as_keys(ids), progress
        )

    async def retry_failed(self, outcomes: Outcomes[T]) -> Outcomes[T]:
        """Ask once more for what failed, where that is safe; see `Outcomes.retry_failed`.

        Args:
            outcomes: what a method of this session returned, or of a scope in it.

        Returns:
            The same keys in the same order, with the new outcomes in place of the failed ones.

        Raises:
            RuntimeError: these outcomes were loaded from JSON or a pickle, and know no session to
                ask.

        Cancellation:
            As of the operation that made the outcomes, which are never changed.
        """
        return await outcomes.retry_failed()

    async def destroy_with(
        self,
        prefix: str | re.Pattern[str],
        kind: str | None = SessionKind.HEADLESS,
        status: str | None = SessionStatus.COMPLETED,
        *,
        progress: ProgressCallback | None = None,
    ) -> Outcomes[bool]:
        """End all sessions whose names begin with *prefix*.

        Args:
            prefix: the beginning of the names, in any case; or a compiled pattern, matched at the
                beginning.
            kind: only sessions of this kind; None for all.
            status: only sessions in this status; None for all. ``"Completed"`` takes in the
                ``Succeeded`` of older servers.
            progress: as of `destroy`.

        Returns:
            As of `destroy`, for the sessions that were chosen; empty if there were none.

        Raises:
            InvalidRequest: *prefix* is empty, or could not begin any name.
            RequestError: the sessions could not be listed; nothing was destroyed.

        Cancellation:
            As of `destroy`.
        """
        is_chosen = chooser(prefix, status)
        chosen = [info for info in await self.fetch(kind) if is_chosen(info)]
        return await self.destroy(chosen, progress=progress)
