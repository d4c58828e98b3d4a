"""The client: every operation is a method that delegates."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import TypeVar, final

from kaleden import _operations
from kaleden._connect import connect
from kaleden._create import launch_plain
from kaleden._destroy import destroy, name_matcher
from kaleden._operations import Ids, as_keys
from kaleden._outcomes import Outcomes, Success
from kaleden._queries import Queries
from kaleden._scope import OnSuccess, Scope
from kaleden._stream import Streams
from kaleden._ticket import read_spec
from kaleden._wire import (
    Event,
    Kind,
    SessionInfo,
    SessionSpec,
    Status,
)

T = TypeVar("T")

logger = logging.getLogger("kaleden")


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

    Args:
        url: the server's URL, with or without the API version: ``https://ws-uv.canfar.net/skaha``.
        token: a bearer token; None asks anonymously. It is sent over https only, or to this
            machine.
        version: the API version, where *url* names none.
        timeout: seconds for one attempt of a request, from its turn to the last byte of the reply.
        create_timeout: the same for a create; a busy server takes 60 to 90 seconds for one.
        concurrency: requests in flight at once.
        create_concurrency: creates in flight at once, within *concurrency*.
        settle: seconds in which a session whose create was not answered is looked for in lists.
        create_grace: seconds that a create whose caller was cancelled has for its answer.
        ledger: a file in which scopes and `run` write down what they launch before they launch it,
            so that `reap` can end what a killed process left; None for none.
        transport: what carries the requests, instead of HTTP to *url*; the caller opens and closes
            it.

    Raises:
        ConfigurationError: an argument cannot be used; nothing was sent.
    """

    @property
    def stream(self) -> Streams:
        """The operations that hand on each outcome as soon as it is known; see `Streams`."""
        return Streams(self._rooms)

    async def info(self, ids: Ids) -> Outcomes[SessionInfo]:
        """Read what the server tells of each session.

        On the server each of these costs as much as a whole `fetch`.

        Args:
            ids: the sessions.

        Returns:
            A `SessionInfo` for each session; a failure of kind ``not_found`` where the server knows
            none, which is also what becomes of a headless session an hour after its end.

        Cancellation:
            Requests on their way are given up, and the outcomes known by then are lost; nothing
            changes on the server.
        """
        return await self._engine.collect(_operations.info(self._limits), as_keys(ids))

    async def logs(self, ids: Ids, verbose: bool = False) -> Outcomes[str]:
        """Read the output of each session so far.

        The server answers with an empty text, not with an error, for a session that is unknown,
        pending or
        gone: empty does not mean that nothing was written.

        Args:
            ids: the sessions.
            verbose: also log each output, at level INFO of the logger ``kaleden``.

        Returns:
            The whole output of each session, standard output and error together.

        Cancellation:
            Requests on their way are given up, and the outcomes known by then are lost; nothing
            changes on the server.
        """
        outcomes = await self._engine.collect(_operations.logs(self._limits), as_keys(ids))
        return _told("logs", outcomes) if verbose else outcomes

    async def events(self, ids: Ids, verbose: bool = False) -> Outcomes[tuple[Event, ...]]:
        """Read what the platform reports of each session: scheduling, image pulls, failed starts.

        A failure of kind ``not_found`` may only mean that the session waits in a queue: as long as
        nothing was started for it, the server finds nothing to report on.

        Args:
            ids: the sessions.
            verbose: also log the events, at level INFO of the logger ``kaleden``.

        Returns:
            The events of each session, oldest first as the server lists them; kept for about an
            hour.

        Cancellation:
            Requests on their way are given up, and the outcomes known by then are lost; nothing
            changes on the server.
        """
        outcomes = await self._engine.collect(_operations.events(self._limits), as_keys(ids))
        return _told("events", outcomes) if verbose else outcomes

    async def create(
        self,
        name: str | SessionSpec,
        image: str | None = None,
        cores: float | None = None,
        ram: int | None = None,
        kind: str = Kind.HEADLESS,
        gpu: int | None = None,
        cmd: str | None = None,
        args: str | Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        replicas: int = 1,
    ) -> Outcomes[str]:
        """Launch sessions.

        Everything is checked here first; what the server would silently drop or mangle is refused.
        Each replica is one request, at most *create_concurrency* of them at once, and none is ever
        sent twice.

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

        Returns:
            The id of each new session, by its name, in the order of the replicas. A failure of kind
            ``unknown_effect`` means that the request went out and no usable answer came: a session
            of that name may exist, which `fetch` shows. All other failures made no session.

        Raises:
            InvalidRequest: an argument cannot work; nothing was sent.

        Cancellation:
            Launches on their way are given up, though the server may complete them; sessions that
            were created stay, and are the caller's to end. A warning of the logger ``kaleden``
            names both.
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
        return await launch_plain(self._rooms.launcher, spec)

    def scope(self, *, grace: float = 30.0, on_success: OnSuccess = "destroy") -> Scope:
        """Make a block that owns what is launched in it: ``async with session.scope() as scope``.

        Args:
            grace: seconds that leaving the block may take, at most, to end what it owns.
            on_success: ``"destroy"`` ends the sessions also if the block ended well; ``"release"``
                lets them live then, and ends them only on an error or a cancellation.

        Returns:
            A `Scope`, to be entered.
        """
        return Scope(self._rooms, grace, on_success)

    async def renew(self, ids: Ids) -> Outcomes[bool]:
        """Put off the expiry of each session, as far as the server's own rules allow.

        The server answers without the new time; read ``expiry_time`` again with `info`.

        Args:
            ids: the sessions.

        Returns:
            True for each session that was renewed; a failure for one that is not active.

        Cancellation:
            Requests on their way are given up; the server may have renewed their sessions all the
            same.
        """
        return await self._engine.collect(_operations.renew(self._limits), as_keys(ids))

    async def destroy(self, ids: Ids) -> Outcomes[bool]:
        """End sessions, and make sure that they ended.

        The server answers every delete with success, also when it failed. So after the deletes one
        list is asked for, and a session counts as destroyed only if that shows it absent or
        terminating.

        Args:
            ids: the sessions.

        Returns:
            True for each session that is gone, or was never there; a failure of kind
            ``not_destroyed`` for each that is still listed, or if no list could be had.

        Cancellation:
            Requests on their way are given up; any of the sessions may be destroyed or not. Calling
            it again with the same ids is safe.
        """
        return await destroy(self._engine, self._rooms.lister, self._limits, as_keys(ids))

    async def destroy_with(
        self,
        prefix: str | re.Pattern[str],
        kind: str | None = Kind.HEADLESS,
        status: str | None = Status.COMPLETED,
    ) -> Outcomes[bool]:
        """End all sessions whose names begin with *prefix*.

        Args:
            prefix: the beginning of the names, in any case; or a compiled pattern, matched at the
                beginning.
            kind: only sessions of this kind; None for all.
            status: only sessions in this status; None for all. ``"Completed"`` takes in the
                ``Succeeded`` of older servers.

        Returns:
            As of `destroy`, for the sessions that were chosen; empty if there were none.

        Raises:
            InvalidRequest: *prefix* is empty, or could not begin any name.
            RequestError: the sessions could not be listed; nothing was destroyed.

        Cancellation:
            As of `destroy`.
        """
        begins = name_matcher(prefix)
        chosen = [
            session
            for session in await self.fetch(kind)
            if begins(session.name) and (status is None or session.status.matches(status))
        ]
        return await self.destroy(chosen)

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


def _told(what: str, outcomes: Outcomes[T]) -> Outcomes[T]:
    for outcome in outcomes:
        text = outcome.value if isinstance(outcome, Success) else outcome.message
        logger.info("%s of %s: %s", what, outcome.key, text)

    return outcomes
