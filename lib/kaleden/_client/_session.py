"""`AsyncSession`, the client; its methods delegate to the engine and to session operations."""

from __future__ import annotations

import logging
import re
import reprlib
import ssl
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from os import PathLike
from typing import Any, Literal, NoReturn, Self, TypeVar, final, overload

from anyio import AsyncContextManagerMixin

from kaleden._auth import ClientOptions, ConnectionInfo, TokenFunction, number
from kaleden._client._runtime import Runtime, SessionStatistics
from kaleden._client._streams import Streams
from kaleden._engine import _operations
from kaleden._engine._config import RETRY, Limits, RetryPolicy
from kaleden._engine._engine import Engine
from kaleden._engine._operations import check_max_bytes
from kaleden._engine._targets import Ids, as_keys
from kaleden._engine._tasks import map_with_checkpoints
from kaleden._http import HttpAuth, HttpClient, Transport
from kaleden._results._batch import FinishedSession, Outcomes, Success
from kaleden._results._progress import ProgressCallback
from kaleden._results._session_list import SessionList
from kaleden._sessions._components import Components
from kaleden._sessions._launch._deletion import destroy
from kaleden._sessions._launch._filter import build_filter
from kaleden._sessions._launch._launch_request import read_spec
from kaleden._sessions._launch._unowned import launch_plain
from kaleden._sessions._monitor._browser import connect
from kaleden._sessions._monitor._follow import LogStream, follow
from kaleden._sessions._monitor._unknown import UnknownIds
from kaleden._sessions._monitor._wait import Until
from kaleden._sessions._reap import reap
from kaleden._sessions._run import RunOptions, read_start_rule, run
from kaleden._sessions._scope import OnExit, Scope, check_on_exit
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
    check_status,
)

T = TypeVar("T")

logger = logging.getLogger("kaleden")


@final
class AsyncSession(AsyncContextManagerMixin):
    """A client of one Skaha server: ``async with AsyncSession(url, token) as session: ...``.

    It runs on asyncio and on trio, and belongs to the event loop in which it was entered. Any
    number of tasks may use it at once; together they have at most *concurrency* requests in flight.
    Outside of the block, requests are refused with `SessionNotOpen`; in another event loop, with
    `WrongEventLoop`.

    Methods over many sessions (`info`, `logs`, `wait`, `destroy`, ...) take one id, an iterable or
    asynchronous iterable of ids, the `SessionInfo` objects that `fetch` returns, or the `Outcomes`
    of an earlier call. They return `Outcomes`, with one `Success` or `Failure` for each session. A
    failure has a `FailureKind` and is not raised; only an error of the call as a whole is raised,
    such as an invalid argument. Methods that do not concern particular sessions (`fetch`, `stats`,
    `images`, ...) raise a `RequestError` if their request fails.

    No method has an argument for a time-out: put the call under ``anyio.fail_after``.

    Without arguments, the client looks for the server and the login, first in ``CANFAR_URL`` and
    ``CANFAR_TOKEN`` or ``CANFAR_CERTIFICATE``, then in the configuration that ``canfar login``
    saves (``~/.canfar/config.yaml``), then in ``~/.ssl/cadcproxy.pem``, which is for CANFAR itself.
    The server and the login may come from different sources, but a login is sent only to the server
    that its own source names. `describe` returns the result and its sources. Files are read when
    the client is made.

    Args:
        url: the URL of the server, with or without the API version, such as
            ``https://ws-uv.canfar.net/skaha``.
        token: a bearer token, or a plain or async function that returns one. The function is called
            when a token is first needed, and after the server has refused the last one (401); a
            plain function is called in a thread. If no login is given or found, requests are
            anonymous.
        server: the name of a saved server, instead of *url*, with the login that is saved for it.
        certificate: the path of an X.509 proxy certificate: a PEM file with the certificate, its
            key, and its chain. It is read again when it changes. If there is also a token, the
            token is used.
        auth: an ``httpx.Auth``, in place of *token* and *certificate*. It sees each request and its
            response, over the same connections as without it.
        client: an ``httpx.AsyncClient`` or ``httpx2.AsyncClient``, instead of all the arguments
            above; its ``base_url`` is the default of *url*. All requests use its headers and auth;
            the time-outs are those of this session. The caller closes it. It accepts a truncated
            response over TLS as complete, unless its transport is a `kaleden.http.AnyioTransport`.
        registry: the user and the secret for images of a private registry, which are sent only with
            creates. By default those that are saved with the saved server, if that is used.
        proxy: the URL of an http or https proxy, with user and password in it if it needs them,
            percent-encoded. By default that of ``HTTPS_PROXY`` (``HTTP_PROXY`` for plain http) or
            ``ALL_PROXY``, unless ``NO_PROXY`` names the server or it is on this machine.
            ``NO_PROXY`` may list names (``site.org``, ``*.site.org``), addresses and networks
            (``10.128.0.0/16``), each with or without a port, or ``*``. An https proxy is verified
            with the authorities of ``SSL_CERT_FILE`` and ``SSL_CERT_DIR``, or else Mozilla's. A
            SOCKS proxy needs a *client*: ``httpx.AsyncClient(proxy="socks5://HOST:PORT")``.
        ssl_context: the context of connections over https, which is used unchanged; by default one
            that trusts the authorities of ``SSL_CERT_FILE`` and ``SSL_CERT_DIR``, or else
            Mozilla's. With a context that has `ssl.OP_IGNORE_UNEXPECTED_EOF` set, as Python up to
            3.11.2 makes it, a truncated response may be accepted as complete: clear that option in
            yours.
        version: the API version, if the URL does not contain one.
        timeout: seconds for one attempt of a request, from the slot of the limiter to the last byte
            of the response; by default ``CANFAR_TIMEOUT``, or else 30.
        create_timeout: seconds for one attempt of a create; a busy server takes 60 to 90 for it.
        concurrency: requests in flight at once; by default ``CANFAR_CONCURRENCY``, or else 32.
        create_concurrency: creates in flight at once, within *concurrency*.
        settle: seconds after a create within which lists may not show its session. If the response
            to a create is lost, its session is looked for in lists for that long.
        outage_timeout: seconds for which `wait`, `run`, `follow` and scopes tolerate a server whose
            lists fail, or that refuses the login; None for no limit. They list once a minute then,
            and log when an outage begins and ends. A *token* that cannot change is tolerated for 60
            seconds at most.
        create_grace: seconds that a create has for its response after its caller was cancelled.
        adaptive: whether to lower the limit of requests in flight while the server is overloaded,
            that is after HTTP 429, HTTP 503 and time-outs: down to one at a time, and up again to
            *concurrency* as the server recovers.
        max_body: bytes of one response body, at most, so that no server can exhaust the memory; by
            default 64 MiB. Only logs come near that, and of a longer log the end is kept. Any other
            longer response is a failure of kind ``protocol``, which is not retried.
        retry: the retry policy; None for no retries.
        ledger: the path of a file in which scopes and `run` record each launch before they send it,
            so that `reap` can end the sessions of a process that was killed; None for no record.
        transport: sends the requests, instead of all the arguments about the server and the login;
            the caller opens and closes it.

    Raises:
        ConfigurationError: no server was found, or an argument or something that was found cannot
            be used, such as an expired certificate; the message says how to correct it. Nothing was
            sent. A certificate is checked again when the client is entered.
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
        settle: float = 30.0,
        outage_timeout: float | None = 3600.0,
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
            outage_timeout=outage_timeout,
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
        """Return the state of the limiter, the retries and the connections.

        Raises:
            SessionNotOpen: the session is not open.
        """
        return self._runtime.statistics()

    def describe(self) -> ConnectionInfo:
        """Return the server and the login, and where both were found, without any secret.

        ``print(session.describe())`` prints a readable description. The session need not be open.
        """
        return self._runtime.connection_info

    @property
    def stream(self) -> Streams:
        """The operations that yield each outcome as soon as it is known; see `Streams`."""
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
        """List the sessions of the user, in one request.

        Args:
            kind: list only sessions of this kind, such as ``"headless"``. Applications of desktops
                are listed only with ``"desktop-app"``.
            status: list only sessions in this status, such as ``"Running"``. ``"Completed"`` and
                ``"Succeeded"``, the word of older servers, include each other.
            view: ``"interactive"`` to leave out headless sessions; ``"all"`` to list the sessions
                of all users, with only the user, kind, status and start time of each.
            raw: whether to return the JSON objects of the server as dicts, which takes half the
                time.

        Returns:
            The sessions in the order of the server; an empty list if there are none. A
            `SessionList` is also a table. An element that is not a session is left out, and logged
            as a warning.

        Raises:
            InvalidRequest: the server does not know *kind*, *status* or *view*, or would ignore one
                of them; nothing was sent.
            RequestError: the request failed.

        Cancellation:
            The request is cancelled. Nothing changes on the server.
        """
        # Servers know either Completed or Succeeded, and filter by the exact word.
        has_two_words = status is not None and check_status(status).matches(SessionStatus.COMPLETED)
        sent = None if has_two_words else status

        def is_wanted(word: object) -> bool:
            return not has_two_words or SessionStatus(str(word)).matches(SessionStatus.COMPLETED)

        if raw:
            raw_list = _operations.raw_fetch(self._limits, kind, sent, view)
            elements: list[Any] = await self._runtime.request(raw_list)
            return [each for each in _keep_objects(elements) if is_wanted(each.get("status"))]

        history = self._components.sessions.history
        listing = await self._runtime.request(_operations.fetch(self._limits, kind, sent, view))
        await map_with_checkpoints(history.record_seen, listing.sessions)
        return SessionList(info for info in _to_session_list(listing) if is_wanted(info.status))

    async def apps(self, session: str | SessionInfo) -> SessionList:
        """List the applications of a desktop session.

        Args:
            session: the desktop session, or its id.

        Returns:
            One `SessionInfo` for each application, with its ``app_id``.

        Raises:
            InvalidRequest: *session* is not a valid id; nothing was sent.
            RequestError: the request failed.

        Cancellation:
            The request is cancelled. Nothing changes on the server.
        """
        key = session.id if isinstance(session, SessionInfo) else session
        listing = await self._runtime.request(_operations.apps(self._limits, key))
        # The server ignores the id and lists the applications of all desktops of the user.
        return SessionList(app for app in _to_session_list(listing) if app.id == key)

    async def stats(self) -> PlatformStats:
        """Read how much of the cores, the memory and the GPUs of the platform is requested.

        Returns:
            The load of the platform now.

        Raises:
            RequestError: the request failed; of kind ``unavailable`` if the server has no metrics
                now.

        Cancellation:
            The request is cancelled. Nothing changes on the server.
        """
        return await self._runtime.request(_operations.stats(self._limits))

    async def images(self, kind: str | None = None) -> list[Image]:
        """List the images from which sessions can be launched.

        Args:
            kind: list only images for this kind of session.

        Returns:
            One `Image` for each image that the server offers.

        Raises:
            InvalidRequest: the server does not know *kind*; nothing was sent.
            RequestError: the request failed.

        Cancellation:
            The request is cancelled. Nothing changes on the server.
        """
        images = await self._runtime.request(_operations.images(self._limits, kind))
        return list(images)

    async def context(self) -> ResourceOptions:
        """Read the resources that a session may request.

        Returns:
            The choices of cores, memory and GPUs, and the limits.

        Raises:
            RequestError: the request failed.

        Cancellation:
            The request is cancelled. Nothing changes on the server.
        """
        return await self._runtime.request(_operations.context(self._limits))

    async def repositories(self) -> list[str]:
        """List the image registries that the server accepts.

        Returns:
            The host name of each registry.

        Raises:
            RequestError: the request failed.

        Cancellation:
            The request is cancelled. Nothing changes on the server.
        """
        repositories = await self._runtime.request(_operations.repositories(self._limits))
        return list(repositories)

    async def availability(self) -> Availability:
        """Read whether the server reports itself available. No credentials are needed.

        Returns:
            The report of the server on itself.

        Raises:
            RequestError: the request failed.

        Cancellation:
            The request is cancelled. Nothing changes on the server.
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
        """Read the details of each session.

        On the server, the details of one session cost as much as a whole `fetch`.

        Args:
            ids: the sessions.
            raw: whether to return the JSON objects of the server as dicts, which takes half the
                time.
            progress: is called with a `ProgressUpdate` after each outcome.

        Returns:
            A `SessionInfo`, or with *raw* a dict, for each session. A failure of kind ``not_found``
            means that the server does not know the session; it forgets a headless session an hour
            after its end.

        Raises:
            InvalidRequest: *progress* cannot be used; nothing was sent.
            Exception: only an error of *progress* or of the iterable of ids.

        Cancellation:
            Requests in flight are cancelled, and the outcomes so far are lost. Nothing changes on
            the server.
        """
        if raw:
            return await self._engine.collect(
                _operations.raw_info(self._limits), as_keys(ids), progress
            )

        history = self._components.sessions.history
        infos = await self._engine.collect(_operations.info(self._limits), as_keys(ids), progress)
        await map_with_checkpoints(history.record_seen, infos.values)
        return infos

    async def logs(
        self,
        ids: Ids,
        verbose: bool = False,
        *,
        max_bytes: int | None = None,
        progress: ProgressCallback | None = None,
    ) -> Outcomes[str]:
        """Read the output of each session so far.

        For a session that is pending, the server sends an empty text and not an error. So an empty
        output does not mean that the session wrote nothing. It also sends one for an unknown
        session; so if any text is empty, the sessions are listed once.

        Args:
            ids: the sessions.
            verbose: whether to log each output too, at level INFO of the logger ``kaleden``.
            max_bytes: the last bytes of each output to return, at most; by default *max_body*. The
                server sends the whole output nevertheless.
            progress: is called with a `ProgressUpdate` after each outcome.

        Returns:
            The output of each session, standard output and standard error together. If its start is
            left out, the attribute ``omitted`` of the `Success` has the number of bytes. A failure
            of kind ``not_found`` means that the server does not list the session.

        Raises:
            InvalidRequest: *progress* cannot be used; nothing was sent.
            Exception: only an error of *progress* or of the iterable of ids.

        Cancellation:
            Requests in flight are cancelled, and the outcomes so far are lost. Nothing changes on
            the server.
        """
        operation = _operations.logs(self._limits, max_bytes)
        checked = UnknownIds(self._components.sessions).check_logs(operation)
        outcomes = await self._engine.collect(checked, as_keys(ids), progress)
        return _log_outcomes("logs", outcomes) if verbose else outcomes

    async def events(
        self, ids: Ids, verbose: bool = False, *, progress: ProgressCallback | None = None
    ) -> Outcomes[tuple[Event, ...]]:
        """Read the platform events of each session: scheduling, image pulls, failed starts.

        Args:
            ids: the sessions.
            verbose: whether to log the events too, at level INFO of the logger ``kaleden``.
            progress: is called with a `ProgressUpdate` after each outcome.

        Returns:
            The events of each session, oldest first as the server lists them; the platform keeps
            them for about an hour. A session that waits in a queue has none. A failure of kind
            ``not_found`` means that the server does not list the session.

        Raises:
            InvalidRequest: *progress* cannot be used; nothing was sent.
            Exception: only an error of *progress* or of the iterable of ids.

        Cancellation:
            Requests in flight are cancelled, and the outcomes so far are lost. Nothing changes on
            the server.
        """
        operation = _operations.events(self._limits)
        checked = UnknownIds(self._components.sessions).check_events(operation)
        outcomes = await self._engine.collect(checked, as_keys(ids), progress)
        return _log_outcomes("events", outcomes) if verbose else outcomes

    async def wait(
        self,
        ids: Ids,
        until: Until = TERMINAL_STATUSES,
        *,
        pending_timeout: float | None = None,
        progress: ProgressCallback | None = None,
    ) -> Outcomes[SessionInfo]:
        """Wait until each session reaches a status, or can no longer reach it.

        All waits of a client share one list for each poll, for any number of sessions and waits.
        Polls are 1 to 15 seconds apart; the interval grows while nothing changes.

        Args:
            ids: the sessions, in a finite iterable.
            until: a status, several of them, or a function that takes a `SessionInfo` and returns a
                bool. By default `TERMINAL_STATUSES`, the statuses that a session does not leave,
                Failed among them. So by default ``ok`` means that all sessions have ended, not that
                they have succeeded: to wait for success, pass ``until="Completed"``.
            pending_timeout: seconds after which a session that is still Pending has failed to
                start; None for no limit.
            progress: is called with a `ProgressUpdate` of the sessions by status, after each poll
                that shows a change.

        Returns:
            The `SessionInfo` of each session, as listed when it reached *until*. The kind of a
            failure is ``wrong_state`` for a session that ended in another status, ``vanished`` for
            one that lists prove to be gone, ``not_found`` for one that no list has shown, and
            ``pending_timeout`` for one that did not start in time; its message has the last events
            of the platform. If the server is away for longer than *outage_timeout*, the kind is
            ``unavailable``, or ``not_authenticated`` if it refuses the login. The failures of
            launches in *ids* are carried on, with the names of the launches as keys.

        Raises:
            InvalidRequest: *until*, *pending_timeout* or *progress* cannot be used; nothing was
                sent.
            Exception: only an error of *until*, *progress* or the iterable of ids.

        Cancellation:
            Nothing changes on the server, and other waits continue.
        """
        return await self._components.waiter.wait(as_keys(ids), until, pending_timeout, progress)

    def follow(self, ids: Ids) -> AbstractAsyncContextManager[LogStream]:
        """Follow logs as they grow: ``async with session.follow(ids) as lines: ...``.

        The server always sends a whole log. The part that was received before is skipped, and
        memory holds at most one response for each of a few readers. Each log is read every 1 to 15
        seconds.

        Args:
            ids: the sessions, in a finite iterable.

        Returns:
            A context manager that yields a `LogStream`. Its items are `LogLine` objects; a
            `LogReset` where a log was replaced by another one; and a `Failure` as the last item of
            a session whose log cannot be followed to its end. The stream ends after all sessions
            have ended and their logs were read once more. An empty response is not a reset, since
            the server also sends one when it cannot reach the container.

        Cancellation:
            Leaving the block cancels the requests in flight. Nothing changes on the server.
        """
        return follow(self._engine, self._limits, self._components.waiter.sessions, as_keys(ids))

    async def connect(self, ids: Ids) -> Outcomes[str]:
        """Open the page of each session in a browser on this machine.

        Args:
            ids: the sessions, each of which must be Running.

        Returns:
            The URL of each page that was opened. It contains the secret of the session, so anyone
            with the URL can use the session. A failure of kind ``not_opened`` means that the
            session is not Running or has no page, or that no browser could be started.

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

        The arguments are checked first: those that the server would silently drop or change are
        refused. Each replica is one request. At most *create_concurrency* of them are in flight at
        once, and none is ever sent twice. The caller is responsible for ending the sessions;
        `scope` and `run` end theirs automatically.

        The names are sent unchanged. So if the response to a create is lost, its session can only
        be recognised as a new one, by a list before the launch and lists after it. If exactly one
        new session has that name, it is assumed to be the lost one. A session that the same user
        launches concurrently under the same name could be mistaken for it.

        Args:
            name: the name, in lower case; with more than one replica, ``-1``, ``-2``, ... are
                appended. Or a `SessionSpec`, which contains all the arguments up to *replicas*.
            image: the container image, ``host/project/name:tag``.
            cores: CPU cores. If both *cores* and *ram* are None, the session uses free resources.
            ram: memory in GiB.
            kind: the kind of the sessions.
            gpu: the number of GPUs.
            cmd: the program to run, one word. Only headless sessions take *cmd*, *args* and *env*.
            args: the arguments of the program, each without spaces.
            env: environment variables. Each replica also gets its number, from 1, as ``REPLICA_ID``
                and the number of replicas as ``REPLICA_COUNT``; `kaleden.distributed` divides work
                by them.
            replicas: the number of sessions to launch.
            progress: is called with a `ProgressUpdate` after each launch.

        Returns:
            The id of each new session, by its name, in the order of the replicas. A failure of kind
            ``unknown_effect`` means that there was no usable response, and that no such session was
            listed until *settle* seconds later; it may still appear. With a failure of any other
            kind, no session was made.

        Raises:
            InvalidRequest: an argument cannot be used; nothing was sent.
            Exception: only an error of *progress*; it has the effects of a cancellation.

        Cancellation:
            No more requests are sent. Creates in flight have *create_grace* seconds more for their
            responses. The sessions that were created stay, and are the caller's to end: a warning
            of the logger ``kaleden`` names them, and those that may still appear.
        """
        spec = read_spec(name, image, cores, ram, kind, gpu, cmd, args, env, replicas)
        return await launch_plain(self._components.launcher, spec, progress=progress)

    def scope(
        self, *, grace: float = 45.0, on_success: OnExit = "destroy", on_error: OnExit = "destroy"
    ) -> Scope:
        """Make a scope that owns its sessions: ``async with session.scope() as scope: ...``.

        Args:
            grace: seconds that the clean-up may take, at most, when the block is left.
            on_success: the action if the block ends without an exception: ``"destroy"`` the
                sessions, or ``"release"`` them. Released sessions outlive the block, and the caller
                is responsible for ending them.
            on_error: the action if an exception or a cancellation ends the block. The ids of
                released sessions are then logged, and in a note of the exception, unless that is a
                cancellation.

        Returns:
            A `Scope`, to be entered.

        Raises:
            ConfigurationError: an argument cannot be used.
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
        on_unread: OnExit = "release",
        max_log_bytes: int | None = None,
        min_started: int | None = None,
        start_timeout: float | None = None,
        grace: float = 45.0,
        progress: ProgressCallback | None = None,
    ) -> Outcomes[FinishedSession]:
        """Launch sessions, wait until they end, collect their output, and clean up.

        This is a scope with a launch and a wait in it. Each log is read as soon as its session has
        ended, since the platform forgets headless sessions an hour later. The arguments up to
        *replicas* are those of `Scope.create`.

        Args:
            name: the name, or a `SessionSpec`; see `Scope.create`, also for the arguments up to
                *replicas*.
            image: the container image.
            cores: CPU cores.
            ram: memory in GiB.
            kind: the kind of the sessions.
            gpu: the number of GPUs.
            cmd: the program to run.
            args: the arguments of the program.
            env: environment variables.
            replicas: the number of sessions to launch.
            on_success: ``"release"`` leaves the sessions on the platform when the call returns,
                instead of destroying them.
            on_error: the same when an exception or a cancellation ends the call; see `scope`.
            on_unread: ``"release"`` leaves a session on the platform if its log could not be read,
                because that is its only copy; ``"destroy"`` destroys it nevertheless.
            max_log_bytes: the last bytes of each log to keep, at most; by default *max_body*.
            min_started: the number of sessions that have to start within *start_timeout*; if fewer
                do, the call gives up.
            start_timeout: seconds from the launch, for *min_started*.
            grace: seconds that the clean-up may take.
            progress: is called with a `ProgressUpdate` of the launches, and then of the sessions by
                status.

        Returns:
            The `FinishedSession` of each replica, by its name and in order: its final state, its
            log and its events. The kind of a failure is ``session_failed`` for a session that ended
            as Failed; its message has the tail of the log. It is ``pending_timeout`` for the
            sessions that were given up because of *min_started*. The other kinds are those of
            `Scope.create` and `wait`. If an outage lasts longer than *outage_timeout*, its kind is
            ``unavailable`` or, for a refused login, ``not_authenticated``; then all sessions are
            released and stay open in the ledger. `retry_failed` waits again for sessions that were
            released, and launches the other failed replicas again.

        Raises:
            InvalidRequest: an argument cannot be used; nothing was sent.
            ConfigurationError: *grace*, *on_success* or *on_error* cannot be used; nothing was
                sent.
            ScopeError: the clean-up could not end all sessions; its `outcomes` are the results.

        Cancellation:
            Unless *on_error* is ``"release"``, all the sessions are destroyed, within *grace*
            seconds, before the cancellation is raised again.
        """
        spec = read_spec(name, image, cores, ram, kind, gpu, cmd, args, env, replicas)
        check_on_exit("on_unread", on_unread)
        start = read_start_rule(spec, min_started, start_timeout)
        new_scope = partial(self.scope, grace=grace, on_success=on_success, on_error=on_error)
        check_max_bytes("max_log_bytes", max_log_bytes)
        options = RunOptions(spec, new_scope, start, on_unread, max_log_bytes, progress)
        return await run(self._components, options)

    async def reap(self, path: str | PathLike[str], *, elsewhere: bool = False) -> Outcomes[bool]:
        """End the sessions that dead processes left, by the ledger in which they are recorded.

        Use the account that launched them: the server does not show the sessions of other users, so
        they would seem to have ended. The call may take *create_timeout* plus *settle* seconds,
        because the session of a launch without a response may appear until then.

        Only sessions on this server are ended, and only if their owner is certainly gone: a process
        of this machine that has ended, or that ran before the machine was last booted.

        Args:
            path: the ledger, as passed to ``AsyncSession(ledger=...)``.
            elsewhere: whether to end also the sessions of owners on other machines, which may still
                be running.

        Returns:
            The outcomes of `destroy` for the sessions that were left, by id. A launch without a
            known id for which no session was found has its name as the key.

        Raises:
            LedgerError: the file cannot be read.

        Cancellation:
            Sessions that were not ended stay in the ledger, for the next call.
        """
        components = self._components
        return await reap(
            components.engine,
            components.sessions,
            components.limits,
            path,
            self._runtime.server,
            elsewhere=elsewhere,
        )

    async def renew(self, ids: Ids, *, progress: ProgressCallback | None = None) -> Outcomes[bool]:
        """Extend the lifetime of each session, as far as the rules of the server allow.

        The response does not contain the new time; read ``expiry_time`` again with `info`.

        Args:
            ids: the sessions.
            progress: is called with a `ProgressUpdate` after each outcome.

        Returns:
            True for each session that was renewed. The kind of a failure is ``bad_request`` for a
            session that is not active, and ``not_found`` for one that the server does not list.

        Raises:
            InvalidRequest: *progress* cannot be used; nothing was sent.
            Exception: only an error of *progress* or of the iterable of ids.

        Cancellation:
            Requests in flight are cancelled; the server may have renewed their sessions
            nevertheless.
        """
        operation = _operations.renew(self._limits)
        checked = UnknownIds(self._components.sessions).check_renew(operation)
        return await self._engine.collect(checked, as_keys(ids), progress)

    async def destroy(
        self, ids: Ids, *, progress: ProgressCallback | None = None
    ) -> Outcomes[bool]:
        """End sessions, and verify that they have ended.

        The server responds to every delete with success, even if the delete failed, and its lists
        may lag. So the sessions are listed before the deletes and after them. A session that could
        still run counts as ended only if two lists, at least a second apart, do not show it, or if
        one shows it as terminating. Until then the deletes are repeated, for up to *settle*
        seconds.

        Args:
            ids: the sessions.
            progress: is called with a `ProgressUpdate` after each response, and again after the
                last list.

        Returns:
            True for each session that was ended, and False for one that was not listed before. A
            failure of kind ``not_destroyed`` means that the session is still listed, or that the
            sessions could not be listed; ``invalid``, that a name was given and not an id; any
            other kind, that the delete itself failed, and that no list proves the session gone.
            Launches without a session, in the `Outcomes` of a `create`, are left out; those of
            unknown outcome are failures.

        Raises:
            InvalidRequest: *progress* cannot be used; nothing was sent.
            Exception: only an error of *progress* or of the iterable of ids.

        Cancellation:
            Requests in flight are cancelled; each of the sessions may be destroyed or not. It is
            safe to call it again with the same ids.
        """
        return await destroy(
            self._engine, self._components.sessions, self._limits, as_keys(ids), progress
        )

    async def retry_failed(self, outcomes: Outcomes[T]) -> Outcomes[T]:
        """Retry the failed requests, where that is safe; see `Outcomes.retry_failed`.

        Args:
            outcomes: the outcomes that a method of this session, or of a scope in it, returned.
                Pass the latest ones: each call repeats the failures in the ones that it is given.

        Returns:
            The same keys in the same order, with the new outcomes in place of the failed ones.

        Raises:
            RuntimeError: these outcomes were loaded from JSON or a pickle, so they have no session
                to send requests with.

        Cancellation:
            See the operation that returned the outcomes. The given outcomes are never changed.
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
        """End all sessions whose names begin with *prefix*; see `destroy`.

        Args:
            prefix: the beginning of the names, in upper or lower case; or a compiled pattern, which
                is matched at the beginning of the names.
            kind: end only sessions of this kind; None for all kinds.
            status: end only sessions in this status; None for all. ``"Completed"`` includes the
                ``Succeeded`` of older servers.
            progress: see `destroy`.

        Returns:
            The outcomes of `destroy` for the sessions that matched; empty if there were none.

        Raises:
            InvalidRequest: *prefix* is empty, or no name can begin with it; or the server does not
                know *kind* or *status*. Nothing was destroyed.
            RequestError: the sessions could not be listed; nothing was destroyed.

        Cancellation:
            Any of the sessions may be destroyed or not; see `destroy`.
        """
        is_chosen = build_filter(prefix, status)
        chosen = [info for info in await self.fetch(kind) if is_chosen(info)]
        return await self.destroy(chosen, progress=progress)


def runtime_of(session: AsyncSession) -> Runtime:
    """Return the runtime of a client, for other modules of this library."""
    return session._runtime  # pyright: ignore[reportPrivateUsage]  # of this module


def _to_session_list(listing: Listing) -> SessionList:
    _warn_malformed(listing.malformed)
    return SessionList(listing.sessions)


def _keep_objects(elements: Sequence[Any]) -> list[Any]:
    _warn_malformed([each for each in elements if not isinstance(each, dict)])
    return [each for each in elements if isinstance(each, dict)]


def _warn_malformed(malformed: Sequence[Any]) -> None:
    if malformed:
        # Some of them may be long, or nested deeply.
        shown = reprlib.repr(list(malformed))
        logger.warning("the list has elements that are not sessions: %s", shown)


def _log_outcomes(operation: str, outcomes: Outcomes[T]) -> Outcomes[T]:
    for outcome in outcomes:
        text = outcome.value if isinstance(outcome, Success) else outcome.message
        logger.info("%s of %s: %s", operation, outcome.key, text)

    return outcomes
