"""What changes nothing: questions about sessions and about the platform."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, TypeVar, overload

from kaleden import _wire
from kaleden._client._runtime import Client
from kaleden._client._streams import Streams
from kaleden._engine import _operations
from kaleden._engine._operations import Ids, as_keys
from kaleden._results._batch import Outcomes, Success
from kaleden._results._progress import ProgressCallback
from kaleden._results._session_list import SessionList
from kaleden._sessions._monitor._browser import connect
from kaleden._sessions._monitor._follow import LogStream, follow
from kaleden._sessions._monitor._wait import Until
from kaleden._wire import (
    TERMINAL_STATUSES,
    Availability,
    Event,
    Image,
    Listing,
    PlatformStats,
    ResourceOptions,
    SessionInfo,
)

T = TypeVar("T")

logger = logging.getLogger("kaleden")


class Queries(Client):
    """The methods of an `AsyncSession` that only read."""

    @property
    def stream(self) -> Streams:
        """The operations that hand on each outcome as soon as it is known; see `Streams`."""
        return Streams(self._rooms)

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
        request = _wire.build_list(kind, status, view)
        if raw:
            return _objects(await self._ask("fetch", request, _wire.parse_raw_list))

        return _sessions(await self._ask("fetch", request, _wire.parse_list))

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
        listing = await self._ask("apps", _wire.build_apps(key), _wire.parse_list)
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
        # The server answers this with 503 and Retry-After whenever it has no metrics, which says
        # nothing of the rest.
        return await self._ask("stats", _wire.build_stats(), _wire.parse_stats, server_wide=False)

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
        return list(await self._ask("images", _wire.build_images(kind), _wire.parse_images))

    async def context(self) -> ResourceOptions:
        """Read what a session may ask for: the choices of cores, memory and GPUs, and the limits.

        Raises:
            RequestError: the request failed.

        Cancellation:
            The request is given up; it changes nothing on the server.
        """
        return await self._ask("context", _wire.build_context(), _wire.parse_context)

    async def repositories(self) -> list[str]:
        """List the registries whose images the server accepts, by host name.

        Raises:
            RequestError: the request failed.

        Cancellation:
            The request is given up; it changes nothing on the server.
        """
        request = _wire.build_repositories()
        return list(await self._ask("repositories", request, _wire.parse_repositories))

    async def availability(self) -> Availability:
        """Read whether the server says of itself that it is available; no credentials are needed.

        Raises:
            RequestError: the request failed.

        Cancellation:
            The request is given up; it changes nothing on the server.
        """
        request = _wire.build_availability()
        return await self._ask("availability", request, _wire.parse_availability)

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
        return await self._rooms.waiter.wait(as_keys(ids), until, pending_timeout, progress)

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
        return follow(self._engine, self._limits, self._rooms.waiter.sessions, as_keys(ids))

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
