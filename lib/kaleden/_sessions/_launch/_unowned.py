"""Launching sessions that nobody owns: the plain `create`."""

from __future__ import annotations

import logging
from collections.abc import Collection
from functools import partial
from typing import final

from anyio.abc import TaskGroup

from kaleden._engine._tasks import open_task_group
from kaleden._results._batch import Outcomes
from kaleden._results._progress import ProgressCallback
from kaleden._sessions._launch._launch_request import LaunchRequest, plain_requests
from kaleden._sessions._launch._launcher import InFlightCreate, Launcher
from kaleden._wire import SessionSpec

logger = logging.getLogger("kaleden")


@final
class _Plain:
    """The account of a launch that nobody owns: it remembers, for a word in the log."""

    def __init__(self, group: TaskGroup) -> None:
        self.group = group
        self.in_flight: set[InFlightCreate] = set()
        self.created: dict[str, str] = {}
        self.unconfirmed: dict[str, LaunchRequest] = {}

    is_open = True

    async def before_send(self, ticket: LaunchRequest) -> None:
        """Nothing is written down for sessions that are meant to stay."""

    async def on_created(self, ticket: LaunchRequest, session: str) -> None:
        self.created[ticket.name] = session
        self.unconfirmed.pop(ticket.name, None)

    async def on_unknown(self, ticket: LaunchRequest) -> None:
        self.unconfirmed[ticket.name] = ticket

    async def on_not_created(self, ticket: LaunchRequest) -> None:
        self.unconfirmed.pop(ticket.name, None)


async def launch_plain(
    launcher: Launcher,
    spec: SessionSpec,
    keys: Collection[str] | None = None,
    progress: ProgressCallback | None = None,
) -> Outcomes[str]:
    """Launch every replica of *spec*, or only those named by *keys*, under the user's own names."""
    tickets = [ticket for ticket in plain_requests(spec) if keys is None or ticket.key in keys]
    account: _Plain | None = None
    try:
        async with open_task_group() as group:
            account = _Plain(group)
            outcomes = await launcher.launch(tickets, account, progress)
    except BaseException:
        if account is not None and (account.created or account.unconfirmed):
            logger.warning("a launch was interrupted: %s", _left(account))
        raise

    return Outcomes("create", outcomes, again=partial(launch_plain, launcher, spec))


def _left(account: _Plain) -> str:
    """Say what may be there."""
    parts: list[str] = []
    if account.created:
        created = sorted(account.created.values())
        parts.append(f"sessions {created} were created and are yours to destroy")
    if account.unconfirmed:
        parts.append(f"sessions with the names {sorted(account.unconfirmed)} may have been created")
    return "; ".join(parts)
