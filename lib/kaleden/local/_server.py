"""`LocalPlatform`: the embedded platform as an async context manager that serves HTTP."""

from __future__ import annotations

import math
import os
import secrets
import ssl
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import anyio
import anyio.abc
from anyio import AsyncContextManagerMixin, CancelScope, to_thread
from starlette.types import ASGIApp

from kaleden._engine._tasks import open_task_group
from kaleden.local._accounts import Accounts, make_token
from kaleden.local._api._app import RequestCounter, Statistics, make_app
from kaleden.local._api._service import Service
from kaleden.local._listener import HOST, bind_port, make_config, serve, shut_down_connections
from kaleden.local._platform._model import GIB, Session, Settings
from kaleden.local._platform._state_machine import Platform
from kaleden.local._processes._procfs import kill_marked
from kaleden.local._processes._runner import (
    MARK,
    Files,
    Runner,
    find_namespace,
    temporary_directory,
)
from kaleden.local._store import Store, serialize_session

if TYPE_CHECKING:
    from kaleden.local._certificates import Authority

TICK_INTERVAL = 0.25


class LocalPlatform(AsyncContextManagerMixin):
    """A Skaha server on this machine that runs headless sessions as local processes.

    ::

        async with LocalPlatform() as platform:
            async with kaleden.AsyncSession(url=platform.url, token=platform.token) as session:
                ...

    Leaving the block ends every process that the platform started, in bounded time, also after an
    exception or a cancellation.

    Args:
        port: the port to listen on at 127.0.0.1; 0 selects a free port.
        cores: capacity in cores. It is only counted, so the default is 16 times the CPUs of this
            machine.
        ram: capacity in GiB, also only counted. The default is 4 for each of the cores.
        token: the bearer token to accept; random by default.
        state: a SQLite file that keeps the sessions across restarts. Their files are beside it, in
            a directory with ``.files`` added to the name. Without it, everything is deleted at the
            end.
        clock: returns seconds since the epoch. It decides about sessions' deadlines, when finished
            sessions are forgotten, and when tokens expire, but not about the server's own
            time-outs.
        user: the name of the first user, the owner of the token. `add_user` adds others.
        max_interactive_sessions: how many interactive sessions a user may have at a time.
        queue: where a session waits for capacity. True: in a queue, suspended; a request for its
            events returns 404. False: as a pod that cannot be scheduled, with an event that gives
            the reason.
        grace: seconds between SIGTERM and SIGKILL when processes are ended.
        isolate: whether to use PID namespaces. None uses them if the kernel allows it.
        tls: whether to serve https, with a certificate of the platform's own authority (`ca_pem`).
            A client with a certificate from `issue_certificate` then needs no token.
        anonymous: the status of the response to a request without a token or certificate: 401, or
            400 as on newer servers.

    Raises:
        ValueError: less than 1 core or 1 GiB, an empty token, or an invalid user name.
        OSError: on entering, the port is in use.
        RuntimeError: on entering, the state file is invalid or in use, or ``isolate=True`` is
            not possible. Also if the platform is entered a second time.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        cores: float | None = None,
        ram: float | None = None,
        token: str | None = None,
        state: str | os.PathLike[str] | None = None,
        clock: Callable[[], float] = time.time,
        user: str = "local",
        max_interactive_sessions: int = 5,
        queue: bool = True,
        grace: float = 1.0,
        isolate: bool | None = None,
        tls: bool = False,
        anonymous: Literal[400, 401] = 401,
    ) -> None:
        cores = 16.0 * (os.cpu_count() or 1) if cores is None else cores
        ram = 4 * cores if ram is None else ram
        settings = Settings(
            millicores=round(1000 * cores),
            ram=round(GIB * ram),
            max_interactive_sessions=max_interactive_sessions,
            queue=queue,
        )
        if token == "":
            raise ValueError(
                "an empty token would admit every request: give a token, or leave it out"
            )
        self.user = user
        self.token: str = make_token() if token is None else token
        self._port = port
        self._platform = Platform(settings)
        self._clock = clock
        self._state = None if state is None else Path(state).absolute()
        self._grace = grace
        self._isolate = isolate
        self._tls = tls
        self._anonymous: Literal[400, 401] = anonymous
        self._accounts = Accounts(clock)
        self._accounts.add(user)
        self._accounts.accept_token(self.token, user)
        self._service: Service | None = None
        self._authority: Authority | None = None
        self._url: str | None = None
        self._app: RequestCounter | None = None
        self._runner: Runner | None = None

    @property
    def url(self) -> str:
        """The base URL, without a version: "http://127.0.0.1:PORT/skaha"."""
        if self._url is None:
            raise RuntimeError("a LocalPlatform has a URL once it is entered with `async with`")
        return self._url

    @property
    def app(self) -> ASGIApp:
        """The ASGI application that the platform serves, for use without a socket."""
        return self._get_app()

    def _get_app(self) -> RequestCounter:
        if self._app is None:
            raise RuntimeError("a LocalPlatform has an app once it is entered with `async with`")
        return self._app

    def add_user(
        self, name: str, *, authorized: bool = True, max_interactive_sessions: int | None = None
    ) -> None:
        """Add a user, or change one.

        Args:
            name: letters, digits, ``-`` and ``_``.
            authorized: False for a user outside the group that may use the platform. Such a user
                can log in, but gets status 403.
            max_interactive_sessions: how many interactive sessions this user may have at a time;
                None for the platform's limit.

        Raises:
            ValueError: the name is invalid.
        """
        self._accounts.add(name, authorized=authorized)
        self._platform.limits.pop(name, None)
        if max_interactive_sessions is not None:
            self._platform.limits[name] = max_interactive_sessions

    def token_for(self, user: str | None = None, *, expires_in: float = math.inf) -> str:
        """Create another bearer token.

        Args:
            user: the owner; None for the platform's first user.
            expires_in: seconds, by the platform's clock, after which it is rejected with 401.

        Raises:
            ValueError: the user does not exist.
        """
        return self._accounts.issue_token(self.user if user is None else user, expires_in)

    def revoke(self, token: str) -> None:
        """Reject a bearer token with status 401 from now on.

        Raises:
            ValueError: the platform does not accept this token.
        """
        self._accounts.revoke_token(token)

    def registry_login(self, user: str | None = None) -> tuple[str, str] | None:
        """Return the registry login that this user last sent with a private image.

        Args:
            user: the owner of the session; None for the platform's first user.

        Returns:
            The user name and the secret at the registry; None if there was no private image.
        """
        if self._service is None:
            return None
        return self._service.registry_logins.get(self.user if user is None else user)

    @property
    def ca_pem(self) -> Path:
        """The file with the authority's certificate for clients. It is deleted at the end."""
        return self._get_authority().ca_pem

    def ssl_context(self, certificate: str | os.PathLike[str] | None = None) -> ssl.SSLContext:
        """Make an SSL context for a client. It trusts only this platform.

        Args:
            certificate: the file of the client's certificate and its key: see `issue_certificate`.

        Raises:
            RuntimeError: the platform was not entered, or not with ``tls=True``.
        """
        return self._get_authority().make_client_context(
            None if certificate is None else Path(certificate)
        )

    def issue_certificate(
        self,
        user: str | None = None,
        *,
        expires_in: float = 3600.0,
        starts_in: float = -300.0,
        path: str | os.PathLike[str] | None = None,
    ) -> Path:
        """Create a proxy certificate, in a file as ``cadc-get-cert`` writes it.

        Args:
            user: the owner; None for the platform's first user.
            expires_in: seconds until it expires, by the system's clock. A negative number makes an
                expired certificate.
            starts_in: seconds until it becomes valid.
            path: the file for the certificate and its key, readable only by its owner. An existing
                file is replaced atomically. The default is a file of the platform, which is deleted
                at the end.

        Returns:
            The file.

        Raises:
            ValueError: the user does not exist.
            RuntimeError: the platform was not entered, or not with ``tls=True``.
        """
        user = self.user if user is None else user
        self._accounts.check_user(user)
        now = time.time()
        begin = min(now + starts_in, now + expires_in - 1)
        file = None if path is None else Path(path)
        return self._get_authority().issue_proxy(user, file, begin, now + expires_in)

    def _get_authority(self) -> Authority:
        if self._authority is None:
            raise RuntimeError("only a LocalPlatform(tls=True) that is entered has certificates")
        return self._authority

    def sessions(self) -> list[Session]:
        """Return the current sessions of all users, including finished ones, oldest first."""
        return list(self._platform.everyones())

    def statistics(self) -> Statistics:
        """Return the counts of requests, sessions and processes."""
        counter = self._get_app()
        return Statistics(
            requests=counter.requests,
            in_flight=counter.in_flight,
            max_in_flight=counter.max_in_flight,
            sessions=self._platform.count(),
            processes=0 if self._runner is None else self._runner.alive,
        )

    def __repr__(self) -> str:
        if self._app is None:
            return "<LocalPlatform, not entered>"
        counts = (f"{n} {status}" for status, n in self.statistics().sessions.items())
        return f"<LocalPlatform {self._url}, {', '.join(counts) or 'no sessions'}>"

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[Self]:
        if self._app is not None:
            raise RuntimeError("a LocalPlatform is entered once: make another")
        port: int | None = None
        async with (
            self._open_authority(),
            self._open_files() as files,
            self._open_state() as (mark, store),
            open_task_group() as group,
        ):
            try:
                port = await self._start(group, files, mark, store)
                yield self
            finally:
                self._platform.close()
                group.cancel_scope.cancel()
                if port is not None:
                    shut_down_connections(port)

    async def _start(
        self, group: anyio.abc.TaskGroup, files: Files, mark: str, store: Store | None
    ) -> int:
        """Start to serve. Return the port, which accepts connections by then."""
        namespace = await to_thread.run_sync(_choose_namespace, self._isolate)
        runner = self._runner = Runner(
            platform=self._platform,
            files=files,
            clock=self._clock,
            group=group,
            mark=mark,
            hostname=HOST,
            grace=self._grace,
            namespace=namespace,
        )
        tls = None
        if self._authority is not None:
            tls = self._authority.server_pem, self._authority.make_server_context()
        with bind_port(self._port) as listener:
            port: int = listener.getsockname()[1]
            origin = f"{'https' if self._tls else 'http'}://{HOST}:{port}"
            service = Service(self._platform, origin, files.log_file, self._anonymous)
            self._app = make_app(
                service, self._accounts, clock=self._clock, execute_orders=runner.execute_orders
            )
            config = make_config(listener.detach(), tls)
        await group.start(serve, self._app, config)
        self._service = service
        self._url = service.base
        group.start_soon(self._run_periodic_tasks, runner, store)
        return port

    async def _run_periodic_tasks(self, runner: Runner, store: Store | None) -> None:
        """Do the work that no request triggers: measure, advance the time, and save changes."""
        while True:
            await runner.check_usage()
            self._platform.advance(self._clock())
            runner.execute_orders()
            await self._save_changes(store)
            await anyio.sleep(TICK_INTERVAL)

    async def _save_changes(self, store: Store | None) -> None:
        """Save the changes since the last call in the state file, if there is one."""
        changes = self._platform.take_changes()
        if store is not None and changes:
            serialized = [(key, None if s is None else serialize_session(s)) for key, s in changes]
            with CancelScope(shield=True):
                await to_thread.run_sync(store.save, serialized)

    @asynccontextmanager
    async def _open_files(self) -> AsyncGenerator[Files]:
        """Prepare the sessions' directory: beside the state file, or a temporary one."""
        kept = None if self._state is None else nullcontext(Path(f"{self._state}.files"))
        async with kept or temporary_directory() as directory:
            files = Files(directory)
            await to_thread.run_sync(files.prepare)
            yield files

    @asynccontextmanager
    async def _open_authority(self) -> AsyncGenerator[None]:
        """Create the certificate authority for the time of the block, with ``tls=True``."""
        if not self._tls:
            yield
            return

        # Imported late: it takes half of the import time of the package, and is rarely needed.
        from kaleden.local._certificates import Authority  # noqa: PLC0415

        async with temporary_directory() as directory:
            hosts = (HOST, "localhost")
            self._authority = await to_thread.run_sync(Authority, directory, hosts)
            yield

    @asynccontextmanager
    async def _open_state(self) -> AsyncGenerator[tuple[str, Store | None]]:
        """Open the state file, if there is one, and restore its sessions.

        Yield the marker of this platform's processes, and the open file.
        """
        if self._state is None:
            yield secrets.token_urlsafe(24), None
            return

        store = await to_thread.run_sync(Store, self._state)
        try:
            mark = await to_thread.run_sync(store.get_value, "mark")
            # A platform that was killed may have left processes, which are not supervised any more.
            await to_thread.run_sync(kill_marked, f"{MARK}={mark}/")
            self._platform.restore(await to_thread.run_sync(store.load), self._clock())
            yield mark, store
        finally:
            with CancelScope(shield=True):
                await self._save_changes(store)
                await to_thread.run_sync(store.close)


def _choose_namespace(isolate: bool | None) -> tuple[str, ...]:
    if isolate is False:
        return ()
    namespace = find_namespace()
    if isolate and not namespace:
        raise RuntimeError(
            "this system has no PID namespaces: leave `isolate` out, or pass isolate=False"
        )
    return namespace
