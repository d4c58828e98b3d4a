"""`AsyncSession`: the client, whose methods delegate to the engine and to session operations."""

from __future__ import annotations

import logging
import re
import ssl
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from os import PathLike
from typing import Any, Literal, NoReturn, Self, TypeVar, final, overload

from anyio import AsyncContextManagerMixin

from kaleden._auth import ClientOptions, ConnectionInfo, TokenFunction, number
from kaleden._client._runtime import Runtime, SessionStatistics
from kaleden._client._streams import Streams
from kaleden._engine import _operations
from kaleden._engine._config import RETRY, Limits, RetryPolicy
from kaleden._engine._engine import Engine
from kaleden._engine._operations import Ids, as_keys
from kaleden._http import HttpAuth, HttpClient, Transport
from kaleden._results._batch import FinishedSession, Outcomes, Success
from kaleden._results._progress import ProgressCallback
from kaleden._results._session_list import SessionList
from kaleden._sessions._components import Components
from kaleden._sessions._launch._destroy import chooser, destroy
from kaleden._sessions._launch._launch_request import read_spec
from kaleden._sessions._launch._unowned import launch_plain
from kaleden._sessions._monitor._browser import connect
from kaleden._sessions._monitor._follow import LogStream, follow
from kaleden._sessions._monitor._wait import Until
from kaleden._sessions._reap import reap
from kaleden._sessions._run import read_start_rule, run
from kaleden._sessions._scope import OnExit, Scope
from kaleden._wire import (
    TERMINAL_STATUSES,
    Availability,
    Event,
    Image,
    Listing,
    PlatformStats,
    ResourceOptions,
    SessionInfo,
    SessionKind,
    SessionSpec,
    SessionStatus,
)

T = TypeVar("T")

logger = logging.getLogger("kaleden")


@final
class AsyncSession(AsyncContextManagerMixin):
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
        auth: an ``httpx.Auth``, in place of *token* and *certificate*. It sees each request and its
            response, over the same connections as without it.
        client: an ``httpx.AsyncClient`` or ``httpx2.AsyncClient``, in place of all these; *url* is
            its ``base_url`` unless given. All requests go through it, with its own headers and
            auth, but with the times given here. The caller closes it. It takes a truncated reply
            over TLS as complete, unless its transport is a `kaleden.http.AnyioTransport`.
        registry: user and secret for images of a private registry; they are sent with creates only.
            By default those saved with the saved server, if it is that.
        proxy: the URL of an http or https proxy, with user and password in it if it needs them,
            percent-encoded. By default that of ``HTTPS_PROXY`` (``HTTP_PROXY`` for plain http) or
            ``ALL_PROXY``, unless ``NO_PROXY`` names the server or it is on this machine.
            ``NO_PROXY`` may list names (``site.org``, ``*.site.org``), addresses and networks
            (``10.128.0.0/16``), each with or without a port, or ``*``. An https proxy is verified
            with the authorities of ``SSL_CERT_FILE`` and ``SSL_CERT_DIR``, or else Mozilla's. A
            SOCKS proxy needs a *client*: ``httpx.AsyncClient(proxy="socks5://HOST:PORT")``.
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

    def __init__(
        self,
        url: str | None = None,
        token: str | TokenFunction | None = None,
        *,
        server: str | None = None,
        certificate: str | PathLike[str] | None = None,
        auth: HttpAuth | None = None,
        client: HttpClient | None = None,
        registry: tuple[str, str] | None = None,
        proxy: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        version: str = "v1",
        timeout: float | None = None,
        create_timeout: float = 180.0,
        concurrency: int | None = None,
        create_concurrency: int = 8,
        settle: float = 10.0,
        create_grace: float = 10.0,
        adaptive: bool = False,
        max_body: int | None = None,
        retry: RetryPolicy | None = RETRY,
        ledger: str | PathLike[str] | None = None,
        transport: Transport | None = None,
    ) -> None:
        limits = Limits(
            timeout=number("CANFAR_TIMEOUT", float, 30.0) if timeout is None else timeout,
            create_timeout=create_timeout,
            concurrency=number("CANFAR_CONCURRENCY", int, 32)
            if concurrency is None
            else concurrency,
            create_concurrency=create_concurrency,
            settle=settle,
            create_grace=create_grace,
            adaptive=adaptive,
            max_body=max_body,
        )
        self._runtime = Runtime(
            ClientOptions(
                url=url,
                token=token,
                server=server,
                certificate=certificate,
                auth=auth,
                client=client,
                registry=registry,
                proxy=proxy,
                ssl_context=ssl_context,
                version=version,
                limits=limits,
                retry=retry,
                ledger=ledger,
                transport=transport,
            )
        )

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[Self]:
        async with self._runtime.open():
            yield self

    def __repr__(self) -> str:
        return repr(self._runtime)

    def __reduce__(self) -> NoReturn:
        # A copy would contain the token.
        raise TypeError("an AsyncSession is neither copied nor pickled: make another one there")

    @property
    def _components(self) -> Components:
        return self._runtime.components

    @property
    def _engine(self) -> Engine:
        return self._runtime.components.engine

    @property
    def _limits(self) -> Limits:
        return self._runtime.options.limits

    def statistics(self) -> SessionStatistics:
        """Return the state of the session's limiter, retries and connections.

        Raises:
            SessionNotOpen: the session is not open.
        """
        return self._runtime.statistics()

    def describe(self) -> ConnectionInfo:
        """Describe the server and the login, and where both were found; nothing secret.

        ``print(session.describe())`` shows it for people. It works also before the session is open.
        """
        return self._runtime.connection_info

    @property
    def stream(self) -> Streams:
        """The operations that hand on each outcome as soon as it is known; see `Streams`."""
        return Streams(self._components)

    @overload
    async def fetch(
        self,
        kind: str | None = None,
        status: str | None = None,
        view: str | None = None,
        *,
        raw: Literal[False] = False,
    ) -> SessionList: ...

    @overload
    async def fetch(
        self,
        kind: str | None = None,
        status: str | None = None,
        view: str | None = None,
        *,
        raw: Literal[True],
    ) -> list[dict[str, Any]]: ...

    @overload
    async def fetch(
        self,
        kind: str | None = None,
        status: str | None = None,
        view: str | None = None,
        *,
        raw: bool,
    ) -> SessionList | list[dict[str, Any]]: ...

    async def fetch(
        self,
        kind: str | None = None,
        status: str | None = None,
        view: str | None = None,
        *,
        raw: bool = False,
    ) -> list[Any]:
        """List the sessions of the user, all in one request.

        Args:
            kind: only this kind, such as ``"headless"``. Applications of desktops are listed only
                if asked for with ``"desktop-app"``.
            status: only this status, such as ``"Running"``.
            view: ``"interactive"`` leaves out headless sessions; ``"all"`` lists everybody's, with
                no more than user, kind, status and start time of each.
            raw: whether to return the server's own objects, as dicts; that takes half the time.

        Returns:
            The sessions in the server's order; empty if there are none. The list is a table too.

        Raises:
            InvalidRequest: an argument is none that the server knows.
            RequestError: the request failed.

        Cancellation:
            The request is given up; it changes nothing on the server.
        """
        if raw:
            raw_list = _operations.raw_fetch(self._limits, kind, status, view)
            objects = await self._runtime.request(raw_list)
            return _objects(objects)

        listing = await self._runtime.request(_operations.fetch(self._limits, kind, status, view))
        return _sessions(listing)

    async def apps(self, session: str | SessionInfo) -> SessionList:
        """List the applications that run in a desktop session.

        Args:
            session: the desktop.

        Returns:
            One `SessionInfo` per application, each with its ``app_id``.

        Raises:
            InvalidRequest: that cannot be a session's id.
            RequestError: the request failed.

        Cancellation:
            The request is given up; it changes nothing on the server.
        """
        key = session.id if isinstance(session, SessionInfo) else session
        listing = await self._runtime.request(_operations.apps(self._limits, key))
        # The server lists the applications of all the user's desktops, whichever was asked for.
        return SessionList(app for app in _sessions(listing) if app.id == key)

    async def stats(self) -> PlatformStats:
        """Read how much of the platform's cores, memory and GPUs is requested.

        Raises:
            RequestError: the request failed; of kind ``unavailable`` if the server has no metrics
                now.

        Cancellation:
            The request is given up; it changes nothing on the server.
        """
        return await self._runtime.request(_operations.stats(self._limits))

    async def images(self, kind: str | None = None) -> list[Image]:
        """List the images that sessions can be launched from.

        Args:
            kind: only those for this kind of session.

        Raises:
            InvalidRequest: the server knows no such kind.
            RequestError: the request failed.

        Cancellation:
            The request is given up; it changes nothing on the server.
        """
        images = await self._runtime.request(_operations.images(self._limits, kind))
        return list(images)

    async def context(self) -> ResourceOptions:
        """Read what a session may ask for: the choices of cores, memory and GPUs, and the limits.

        Raises:
            RequestError: the request failed.

        Cancellation:
            The request is given up; it changes nothing on the server.
        """
        return await self._runtime.request(_operations.context(self._limits))

    async def repositories(self) -> list[str]:
        """List the registries whose images the server accepts, by host name.

        Raises:
            RequestError: the request failed.

        Cancellation:
            The request is given up; it changes nothing on the server.
        """
        repositories = await self._runtime.request(_operations.repositories(self._limits))
        return list(repositories)

    async def availability(self) -> Availability:
        """Read whether the server says of itself that it is available; no credentials are needed.

        Raises:
            RequestError: the request failed.

        Cancellation:
            The request is given up; it changes nothing on the server.
        """
        return await self._runtime.request(_operations.availability(self._limits))

    @overload
    async def info(
        self, ids: Ids, *, raw: Literal[False] = False, progress: ProgressCallback | None = None
    ) -> Outcomes[SessionInfo]: ...

    @overload
    async def info(
        self, ids: Ids, *, raw: Literal[True], progress: ProgressCallback | None = None
    ) -> Outcomes[dict[str, Any]]: ...

    @overload
    async def info(
        self, ids: Ids, *, raw: bool, progress: ProgressCallback | None = None
    ) -> Outcomes[SessionInfo] | Outcomes[dict[str, Any]]: ...

    async def info(
        self, ids: Ids, *, raw: bool = False, progress: ProgressCallback | None = None
    ) -> Outcomes[Any]:
        """Read what the server tells of each session.

        On the server each of these costs as much as a whole `fetch`.

        Args:
            ids: the sessions.
            raw: whether to return the server's own objects, as dicts; that takes half the time.
            progress: is called with a `ProgressUpdate` after each answer.

        Returns:
            A `SessionInfo` for each session; a failure of kind ``not_found`` where the server knows
            none, which is also what becomes of a headless session an hour after its end.

        Cancellation:
            Requests on their way are given up, and the outcomes known by then are lost; nothing
            changes on the server.
        """
        operation = _operations.raw_info if raw else _operations.info
        return await self._engine.collect(operation(self._limits), as_keys(ids), progress)

    async def logs(
        self, ids: Ids, verbose: bool = False, *, progress: ProgressCallback | None = None
    ) -> Outcomes[str]:
        """Read the output of each session so far.

        The server answers with an empty text, not with an error, for a session that is unknown,
        pending or no longer there: empty does not mean that nothing was written.

        Args:
            ids: the sessions.
            verbose: also log each output, at level INFO of the logger ``kaleden``.
            progress: is called with a `ProgressUpdate` after each answer.

        Returns:
            The whole output of each session, standard output and error together.

        Cancellation:
            Requests on their way are given up, and the outcomes known by then are lost; nothing
            changes on the server.
        """
        outcomes = await self._engine.collect(
            _operations.logs(self._limits), as_keys(ids), progress
        )
        return _told("logs", outcomes) if verbose else outcomes

    async def events(
        self, ids: Ids, verbose: bool = False, *, progress: ProgressCallback | None = None
    ) -> Outcomes[tuple[Event, ...]]:
        """Read what the platform reports of each session: scheduling, image pulls, failed starts.

        A failure of kind ``not_found`` may only mean that the session waits in a queue: as long as
        nothing was started for it, the server finds nothing to report on.

        Args:
            ids: the sessions.
            verbose: also log the events, at level INFO of the logger ``kaleden``.
            progress: is called with a `ProgressUpdate` after each answer.

        Returns:
            The events of each session, oldest first as the server lists them; kept for about an
            hour.

        Cancellation:
            Requests on their way are given up, and the outcomes known by then are lost; nothing
            changes on the server.
        """
        outcomes = await self._engine.collect(
            _operations.events(self._limits), as_keys(ids), progress
        )
        return _told("events", outcomes) if verbose else outcomes

    async def wait(
        self,
        ids: Ids,
        until: Until = TERMINAL_STATUSES,
        *,
        pending_timeout: float | None = None,
        progress: ProgressCallback | None = None,
    ) -> Outcomes[SessionInfo]:
        """Wait until every session is where it should be, or will not get there.

        All waits of a client share one list per look, whatever the number of sessions and of waits.
        A look follows the one before by 1 to 15 seconds, longer while nothing changes.

        Args:
            ids: the sessions, in a finite iterable.
            until: a status, several, or a function of `SessionInfo`; by default
                `TERMINAL_STATUSES`, the statuses that a session does not leave, Failed among them.
                Then ``ok`` means "all have ended", and not how: to wait for success, say
                ``until="Completed"``.
            pending_timeout: seconds after which a session that is still Pending has failed to
                start.
            progress: is called with a `ProgressUpdate` of the sessions by status, when something
                changed.

        Returns:
            Each session as it was listed when it was there. A failure of kind ``wrong_state`` for
            one that ended otherwise, ``vanished`` for one that two lists no longer showed,
            ``pending_timeout``, with the platform's last events, for one that did not start, and
            what a list may fail of, if that does not pass.

        Raises:
            InvalidRequest: *until* or *pending_timeout* cannot be used; nothing was sent.
            Exception: only what *until*, *progress* or the iterable of ids raised.

        Cancellation:
            Nothing changes on the server, and other waits go on.
        """
        return await self._components.waiter.wait(as_keys(ids), until, pending_timeout, progress)

    def follow(self, ids: Ids) -> AbstractAsyncContextManager[LogStream]:
        """Follow logs as they grow: ``async with session.follow(ids) as lines: ...``.

        The server sends the whole log each time; what was seen is skipped, and memory holds no more
        than one reply for each of a few readers. Each log is read every 1 to 15 seconds.

        Args:
            ids: the sessions, in a finite iterable.

        Returns:
            A context manager that gives a `LogStream` of `LogLine` objects; a `LogReset` where a
            log was replaced by another; and a `Failure` as the last item of a session whose log
            cannot be followed to its end. It ends when all sessions have, and their logs were read
            once more. The server also answers with
            nothing when it cannot reach the container, so an empty answer is no reset.

        Cancellation:
            Leaving the block gives up what is on its way; nothing changes on the server.
        """
        return follow(self._engine, self._limits, self._components.waiter.sessions, as_keys(ids))

    async def connect(self, ids: Ids) -> Outcomes[str]:
        """Open the page of each session in a browser on this machine.

        Args:
            ids: the sessions, each of which must be Running.

        Returns:
            The URL of each page that was opened. It holds the session's secret: whoever has it is
            in. A failure of kind ``not_opened`` where the session is not Running or has no page.

        Cancellation:
            No further page is opened.
        """
        return await connect(self._engine, self._limits, as_keys(ids))

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
        return await launch_plain(self._components.launcher, spec, progress=progress)

    def scope(
        self,
        *,
        grace: float = 30.0,
        on_success: OnExit = "destroy",
        on_error: OnExit = "destroy",
    ) -> Scope:
        """Make a block that owns what is launched in it: ``async with session.scope() as scope``.

        Args:
            grace: seconds that leaving the block may take, at most, to end what it owns.
            on_success: when the block ends without an exception, ``"destroy"`` the sessions or
                ``"release"`` them: they outlive the block, and are the caller's to end.
            on_error: the same when an exception or a cancellation leaves the block. The ids of
                released sessions are then logged, and in a note of the exception.

        Returns:
            A `Scope`, to be entered.
        """
        return self._runtime.new_scope(grace, on_success, on_error)

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
        on_success: OnExit = "destroy",
        on_error: OnExit = "destroy",
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
            on_success: ``"release"`` leaves the sessions on the platform when the call returns,
                instead of destroying them.
            on_error: the same when an exception or a cancellation ends the call; see `scope`.
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
            Unless *on_error* is ``"release"``, all the sessions are destroyed, within *grace*
            seconds, before it is raised again.
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
        async with self.scope(grace=grace, on_success=on_success, on_error=on_error) as scope:
            return await run(self._components, scope, spec, start, progress)

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
        rooms = self._components
        return await reap(
            rooms.engine,
            rooms.sessions,
            rooms.limits,
            path,
            self._runtime.server,
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
            self._engine, self._components.sessions, self._limits, as_keys(ids), progress
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


def runtime_of(session: AsyncSession) -> Runtime:
    """Return the runtime of a client, for the parts of this library that work on clients."""
    return session._runtime


def _sessions(listing: Listing) -> SessionList:
    _warn_of(listing.malformed)
    return SessionList(listing.sessions)


def _objects(elements: Sequence[Any]) -> list[Any]:
    _warn_of([each for each in elements if not isinstance(each, dict)])
    return [each for each in elements if isinstance(each, dict)]


def _warn_of(malformed: Sequence[Any]) -> None:
    if malformed:
        logger.warning("the list has elements that are no sessions: %r", malformed[:3])


def _told(what: str, outcomes: Outcomes[T]) -> Outcomes[T]:
    for outcome in outcomes:
        text = outcome.value if isinstance(outcome, Success) else outcome.message
        logger.info("%s of %s: %s", what, outcome.key, text)

    return outcomes
