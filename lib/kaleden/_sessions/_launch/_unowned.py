"""Launches without an owner: `AsyncSession.create`."""

from __future__ import annotations

import logging
from collections.abc import Collection
from functools import partial
from typing import final

from anyio.abc import TaskGroup

from kaleden._engine._tasks import open_task_group
from kaleden._results._batch import Outcomes
from kaleden._results._progress import ProgressCallback
from kaleden._sessions._launch._launch_request import LaunchRequest
from kaleden._sessions._launch._launcher import InFlightCreate, Launcher
from kaleden._wire import SessionSpec

logger = logging.getLogger("kaleden")


@final
class _UnownedObserver:
    """The `LaunchObserver` of a launch without an owner; it keeps the names for a log message."""

    def __init__(self, group: TaskGroup) -> None:
        self.group = group
        self.in_flight: set[InFlightCreate] = set()
        self.created: dict[str, str] = {}
        self.unconfirmed: dict[str, LaunchRequest] = {}

    is_open = True

    async def before_send(self, request: LaunchRequest) -> None:
        """Record nothing: the sessions are meant to stay."""

    async def on_created(self, request: LaunchRequest, session: str) -> None:
        self.created[request.name] = session
        self.unconfirmed.pop(request.name, None)

    async def on_unknown(self, request: LaunchRequest) -> None:
        self.unconfirmed[request.name] = request

    async def on_not_created(self, request: LaunchRequest) -> None:
        self.unconfirmed.pop(request.name, None)


async def launch_plain(
    launcher: Launcher,
    spec: SessionSpec,
    keys: Collection[str] | None = None,
    progress: ProgressCallback | None = None,
) -> Outcomes[str]:
    """Launch every replica of *spec*, or only those named by *keys*, under the user's own names."""
    requests = [
        LaunchRequest(launch.name, launch)
        for launch in spec.launches()
        if keys is None or launch.name in keys
    ]
    observer: _UnownedObserver | None = None
    try:
        async with open_task_group() as group:
            observer = _UnownedObserver(group)
            outcomes = await launcher.launch(requests, observer, progress)
    except BaseException:
        if observer is not None and (observer.created or observer.unconfirmed):
            logger.warning("a launch was interrupted: %s", _format_created(observer))
        raise

    return Outcomes("create", outcomes, again=partial(launch_plain, launcher, spec))


def _format_created(observer: _UnownedObserver) -> str:
    """Format which sessions an interrupted launch created or may have created."""
    parts: list[str] = []
    if observer.created:
        created = sorted(observer.created.values())
        parts.append(f"sessions {created} were created and are yours to destroy")
    if observer.unconfirmed:
        names = sorted(observer.unconfirmed)
        parts.append(f"sessions with the names {names} may have been created")
    return "; ".join(parts)
