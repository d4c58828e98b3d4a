"""What changes nothing, in plain code."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal, cast, overload

from kaleden._client._session import AsyncSession
from kaleden._engine._targets import Ids
from kaleden._results._batch import Outcomes
from kaleden._results._progress import ProgressCallback
from kaleden._results._session_list import SessionList
from kaleden._sync._client import SyncClient
from kaleden._sync._iterables import drawn
from kaleden._sync._mirror import mirrors
from kaleden._wire import Availability, Event, Image, PlatformStats, ResourceOptions, SessionInfo


class SyncQueries(SyncClient):
    """The methods of a `Session` that only read."""

    @overload
    def fetch(
        self,
        kind: str | None = None,
        status: str | None = None,
        view: str | None = None,
        *,
        raw: Literal[False] = False,
        timeout: float | None = None,
    ) -> SessionList: ...

    @overload
    def fetch(
        self,
        kind: str | None = None,
        status: str | None = None,
        view: str | None = None,
        *,
        raw: Literal[True],
        timeout: float | None = None,
    ) -> list[dict[str, Any]]: ...

    @overload
    def fetch(
        self,
        kind: str | None = None,
        status: str | None = None,
        view: str | None = None,
        *,
        raw: bool,
        timeout: float | None = None,
    ) -> SessionList | list[dict[str, Any]]: ...

    @mirrors(AsyncSession.fetch)
    def fetch(
        self,
        kind: str | None = None,
        status: str | None = None,
        view: str | None = None,
        *,
        raw: bool = False,
        timeout: float | None = None,
    ) -> list[Any]:
        fetch = cast("Callable[..., Awaitable[list[Any]]]", self._client.fetch)
        return self._begin(timeout).run(fetch, kind, status, view, raw=raw)

    @mirrors(AsyncSession.apps)
    def apps(self, session: str | SessionInfo, *, timeout: float | None = None) -> SessionList:
        return self._begin(timeout).run(self._client.apps, session)

    @mirrors(AsyncSession.stats)
    def stats(self, *, timeout: float | None = None) -> PlatformStats:
        return self._begin(timeout).run(self._client.stats)

    @mirrors(AsyncSession.images)
    def images(self, kind: str | None = None, *, timeout: float | None = None) -> list[Image]:
        return self._begin(timeout).run(self._client.images, kind)

    @mirrors(AsyncSession.context)
    def context(self, *, timeout: float | None = None) -> ResourceOptions:
        return self._begin(timeout).run(self._client.context)

    @mirrors(AsyncSession.repositories)
    def repositories(self, *, timeout: float | None = None) -> list[str]:
        return self._begin(timeout).run(self._client.repositories)

    @mirrors(AsyncSession.availability)
    def availability(self, *, timeout: float | None = None) -> Availability:
        return self._begin(timeout).run(self._client.availability)

    @overload
    def info(
        self,
        ids: Ids,
        *,
        raw: Literal[False] = False,
        progress: ProgressCallback | None = None,
        timeout: float | None = None,
    ) -> Outcomes[SessionInfo]: ...

    @overload
    def info(
        self,
        ids: Ids,
        *,
        raw: Literal[True],
        progress: ProgressCallback | None = None,
        timeout: float | None = None,
    ) -> Outcomes[dict[str, Any]]: ...

    @overload
    def info(
        self,
        ids: Ids,
        *,
        raw: bool,
        progress: ProgressCallback | None = None,
        timeout: float | None = None,
    ) -> Outcomes[SessionInfo] | Outcomes[dict[str, Any]]: ...

    @mirrors(AsyncSession.info)
    def info(
        self,
        ids: Ids,
        *,
        raw: bool = False,
        progress: ProgressCallback | None = None,
        timeout: float | None = None,
    ) -> Outcomes[Any]:
        info = cast("Callable[..., Awaitable[Outcomes[Any]]]", self._client.info)
        call = self._begin(timeout)
        return call.run(info, drawn(ids), raw=raw, progress=call.here(progress))

    @mirrors(AsyncSession.logs)
    def logs(
        self,
        ids: Ids,
        verbose: bool = False,
        *,
        progress: ProgressCallback | None = None,
        timeout: float | None = None,
    ) -> Outcomes[str]:
        call = self._begin(timeout)
        told = call.here(progress)
        return call.run(self._client.logs, drawn(ids), verbose, progress=told)

    @mirrors(AsyncSession.events)
    def events(
        self,
        ids: Ids,
        verbose: bool = False,
        *,
        progress: ProgressCallback | None = None,
        timeout: float | None = None,
    ) -> Outcomes[tuple[Event, ...]]:
        call = self._begin(timeout)
        told = call.here(progress)
        return call.run(self._client.events, drawn(ids), verbose, progress=told)

    @mirrors(AsyncSession.connect)
    def connect(self, ids: Ids, *, timeout: float | None = None) -> Outcomes[str]:
        return self._begin(timeout).run(self._client.connect, drawn(ids))
