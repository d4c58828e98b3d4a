"""`LocalPlatform`: the embedded platform as a context manager, with a port of its own."""

from __future__ import annotations

import math
import os
import secrets
import ssl
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import anyio
import anyio.abc
from anyio import AsyncContextManagerMixin, CancelScope, to_thread
from starlette.types import ASGIApp

from kaleden._engine._tasks import open_task_group
from kaleden.local._accounts import Accounts, new_token
from kaleden.local._api._app import Statistics, Traffic, make_app
from kaleden.local._api._service import Service
from kaleden.local._listener import HOST, hang_up, listen, make_config, serve
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
from kaleden.local._store import Store, freeze

if TYPE_CHECKING:
    from kaleden.local._certificates import Authority

TICK = 0.25


class LocalPlatform(AsyncContextManagerMixin):
    """A Skaha server on this machine, whose headless sessions are local processes.

    ::

        async with LocalPlatform() as platform:
            async with kaleden.AsyncSession(url=platform.url, token=platform.token) as session:
                ...

    Leaving the block ends every process it started, in bounded time, also when the block is left
    by an exception or a cancellation.

    Args:
        port: where to listen on 127.0.0.1; 0 takes a free port.
        cores: capacity in cores. It is book-keeping, so the default is 16 times what there is.
        ram: capacity in GiB, book-keeping too; 4 for each of the cores by default.
        token: the bearer token to accept; a random one by default.
        state: a SQLite file to keep the sessions in; their files go beside it, in a directory
            with ``.files`` added to the name. Without it, all is forgotten and deleted at the end.
        clock: gives the time in seconds since the epoch. It moves sessions' deadlines and their
            being forgotten, and none of the server's own time-outs.
        user: the name of the user that the token is for; `add_user` adds others.
        max_interactive_sessions: how many of them a user may have at a time.
        queue: where a session waits for room. True: in a queue, suspended, where it has no events
            (404). False: as a pod that cannot be scheduled, with an event that says why.
        grace: seconds that processes have between SIGTERM and SIGKILL.
        isolate: whether to use PID namespaces; None for: if the kernel allows it.
        tls: whether to serve https, with a certificate of an authority of its own (`ca_pem`); who
            has a certificate from `issue_certificate` needs no token then.
        anonymous: the status of a call without a login: 401, or 400 as newer servers answer.

    Raises:
        ValueError: less than a core or a GiB, an empty token, or a name that is none.
        OSError: on entering: the port is taken.
        RuntimeError: on entering: the state is not one, or in use; or there is no isolation.
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
            raise ValueError("an empty token would let everybody in: give one, or leave it out")
        self.user = user
        self.token: str = new_token() if token is None else token
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
        self._accounts.accept(self.token, user)
        self._service: Service | None = None
        self._authority: Authority | None = None
        self._url: str | None = None
        self._app: Traffic | None = None
        self._runner: Runner | None = None

    @property
    def url(self) -> str:
        """The base URL, without a version: "http://127.0.0.1:PORT/skaha"."""
        if self._url is None:
            raise RuntimeError("a LocalPlatform has a URL once it is entered with `async with`")
        return self._url

    @property
    def app(self) -> ASGIApp:
        """The ASGI application that is being served, for use without a socket."""
        return self._traffic()

    def _traffic(self) -> Traffic:
        if self._app is None:
            raise RuntimeError("a LocalPlatform has an app once it is entered with `async with`")
        return self._app

    def add_user(
        self, name: str, *, authorized: bool = True, max_interactive_sessions: int | None = None
    ) -> None:
        """Add a user, or change one.

        Args:
            name: letters, digits, ``-`` and ``_``.
            authorized: False for somebody who can log in, and is answered 403: not in the group
                that may use the platform.
            max_interactive_sessions: how many of them this user may have at a time; None for as
                many as others.

        Raises:
            ValueError: the name is none.
        """
        self._accounts.add(name, authorized=authorized)
        self._platform.limits.pop(name, None)
        if max_interactive_sessions is not None:
            self._platform.limits[name] = max_interactive_sessions

    def token_for(self, user: str | None = None, *, expires_in: float = math.inf) -> str:
        """Make one more bearer token.

        Args:
            user: whose it is; None for the platform's first user.
            expires_in: seconds, by the platform's clock, until it is refused with 401.

        Raises:
            ValueError: there is no such user.
        """
        return self._accounts.issue(self.user if user is None else user, expires_in)

    def revoke(self, token: str) -> None:
        """Refuse a bearer token with 401 from now on.

        Raises:
            ValueError: it is none that the platform takes.
        """
        self._accounts.revoke(token)

    def registry_login(self, user: str | None = None) -> tuple[str, str] | None:
        """Tell the user and the secret that came with the last private image of this user."""
        if self._service is None:
            return None
        return self._service.registry_logins.get(self.user if user is None else user)

    @property
    def ca_pem(self) -> Path:
        """The certificate of the authority that clients must trust; there until the end."""
        return self._trusted().ca_pem

    def ssl_context(self, certificate: str | os.PathLike[str] | None = None) -> ssl.SSLContext:
        """Make an SSL context for a client, which trusts this platform and nobody else.

        Args:
            certificate: what the client shows: a file as of `issue_certificate`.
        """
        return self._trusted().client_context(None if certificate is None else Path(certificate))

    def issue_certificate(
        self,
        user: str | None = None,
        *,
        expires_in: float = 3600.0,
        starts_in: float = -300.0,
        path: str | os.PathLike[str] | None = None,
    ) -> Path:
        """Make a proxy certificate, in a file as ``cadc-get-cert`` writes it.

        Args:
            user: whose it is; None for the platform's first user.
            expires_in: seconds until it is not valid any more, by the system's clock; less than 0
                makes an expired one.
            starts_in: seconds until it is valid.
            path: where to put it, with its key and readable by its owner only; what is there is
                replaced at once. By default it is among the platform's own files, until the end.

        Returns:
            The file.

        Raises:
            ValueError: there is no such user.
        """
        user = self.user if user is None else user
        self._accounts.check(user)
        now = time.time()
        begin = min(now + starts_in, now + expires_in - 1)
        file = None if path is None else Path(path)
        return self._trusted().issue(user, file, begin, now + expires_in)

    def _trusted(self) -> Authority:
        if self._authority is None:
            raise RuntimeError("only a LocalPlatform(tls=True) that is entered has certificates")
        return self._authority

    def sessions(self) -> list[Session]:
        """List everybody's sessions that are there now, oldest first, finished ones included."""
        return list(self._platform.everyones())

    def statistics(self) -> Statistics:
        """Tell what the platform has seen and has now."""
        traffic = self._traffic()
        return Statistics(
            requests=traffic.requests,
            in_flight=traffic.in_flight,
            max_in_flight=traffic.max_in_flight,
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
            self._certified(),
            self._files() as files,
            self._memory() as (mark, store),
            open_task_group() as group,
        ):
            try:
                port = await self._open(group, files, mark, store)
                yield self
            finally:
                self._platform.close()
                group.cancel_scope.cancel()
                if port is not None:
                    hang_up(port)

    async def _open(
        self, group: anyio.abc.TaskGroup, files: Files, mark: str, store: Store | None
    ) -> int:
        """Begin to serve; the port, which is returned, accepts connections by then."""
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
            tls = self._authority.server_pem, self._authority.server_context()
        with listen(self._port) as listener:
            port: int = listener.getsockname()[1]
            origin = f"{'https' if self._tls else 'http'}://{HOST}:{port}"
            service = Service(self._platform, origin, files.log, self._anonymous)
            self._app = make_app(service, self._accounts, clock=self._clock, settle=runner.settle)
            config = make_config(listener.detach(), tls)
        await group.start(serve, self._app, config)
        self._service = service
        self._url = service.base
        group.start_soon(self._tick, runner, store)
        return port

    async def _tick(self, runner: Runner, store: Store | None) -> None:
        """Do regularly what no request brings about."""
        while True:
            await runner.watch()
            self._platform.advance(self._clock())
            runner.settle()
            await self._save(store)
            await anyio.sleep(TICK)

    async def _save(self, store: Store | None) -> None:
        """Write down what has changed, if there is where."""
        changes = self._platform.take_changes()
        if store is not None and changes:
            frozen_changes = [(key, None if s is None else freeze(s)) for key, s in changes]
            with CancelScope(shield=True):
                await to_thread.run_sync(store.save, frozen_changes)

    @asynccontextmanager
    async def _files(self) -> AsyncGenerator[Files]:
        """Give the sessions' directory: the state's own, or one for the time of the block."""
        if self._state is not None:
            files = Files(Path(f"{self._state}.files"))
            await to_thread.run_sync(files.prepare)
            yield files
            return

        async with temporary_directory() as directory:
            files = Files(directory)
            await to_thread.run_sync(files.prepare)
            yield files

    @asynccontextmanager
    async def _certified(self) -> AsyncGenerator[None]:
        """Have an authority for the time of the block, if there is to be one."""
        if not self._tls:
            yield
            return

        # Half of the time that it takes to import the package, and rarely needed.
        from kaleden.local._certificates import Authority  # noqa: PLC0415

        async with temporary_directory() as directory:
            hosts = (HOST, "localhost")
            self._authority = await to_thread.run_sync(Authority, directory, hosts)
            yield

    @asynccontextmanager
    async def _memory(self) -> AsyncGenerator[tuple[str, Store | None]]:
        """Recall an earlier life from the state, if there is one; give the processes' mark."""
        if self._state is None:
            yield secrets.token_urlsafe(24), None
            return

        store = await to_thread.run_sync(Store, self._state)
        try:
            mark = await to_thread.run_sync(store.value, "mark")
            # An earlier life that was killed may have left processes, whose end nobody would see.
            await to_thread.run_sync(kill_marked, f"{MARK}={mark}/")
            self._platform.restore(await to_thread.run_sync(store.load), self._clock())
            yield mark, store
        finally:
            with CancelScope(shield=True):
                await self._save(store)
                await to_thread.run_sync(store.close)


def _choose_namespace(isolate: bool | None) -> tuple[str, ...]:
    if isolate is False:
        return ()
    namespace = find_namespace()
    if isolate and not namespace:
        raise RuntimeError("this system gives no PID namespaces: leave `isolate` out, or say False")
    return namespace
