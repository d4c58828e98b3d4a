"""Reaping: destroy the sessions that dead processes left behind.

The ledger records their launches. Sessions with a recorded id are destroyed. A launch without a
recorded id is looked for by its name, which ends in its token. The server may continue a create
after its client is gone. So a list without the session is proof only after the time that a create
may take; see `compute_time_left`.
"""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Final, final

import anyio
from attrs import evolve, frozen

from kaleden._engine._config import Backoff, Limits
from kaleden._engine._engine import Engine
from kaleden._engine._tasks import run_shielded
from kaleden._errors import FailureKind, RequestError
from kaleden._results._batch import Failure, Outcome, Outcomes, Success
from kaleden._sessions._launch._deletion import destroy
from kaleden._sessions._ledger import _file
from kaleden._sessions._ledger._file import (
    Event,
    LedgerError,
    LedgerPath,
    OpenLaunch,
    encode,
    read_ledger,
)
from kaleden._sessions._ledger._ledger import in_file_thread
from kaleden._sessions._ledger._process import ProcessStatus, find_process_status
from kaleden._sessions._monitor._history import Snapshot
from kaleden._sessions._monitor._lister import SharedList
from kaleden._wire import SessionInfo

logger = logging.getLogger("kaleden")

_SEARCH_INTERVALS: Final = (1.0, 15.0, 1.5)
"""Seconds between two lists that look for a launch: the first interval, the longest, the growth."""


@final
@frozen
class Survey:
    """The open launches of a ledger, by the state of their owners.

    Attributes:
        dead: launches of dead owners; they are to be reaped.
        alive: launches of running owners.
        unknown: launches of owners on other machines or in other containers.
        other_servers: launches on other servers.
    """

    dead: list[OpenLaunch]
    alive: list[OpenLaunch]
    unknown: list[OpenLaunch]
    other_servers: list[OpenLaunch]


def survey(path: LedgerPath, server: str) -> Survey:
    """Read a ledger, and find out which of its owners are alive.

    The URL *server* is compared with those that the ledger records.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    status_of = lru_cache(None)(find_process_status)
    by_status: dict[ProcessStatus | None, list[OpenLaunch]] = defaultdict(list)
    for launch in read_ledger(path):
        by_status[status_of(launch.owner) if launch.server == server else None].append(launch)

    return Survey(
        by_status[ProcessStatus.DEAD],
        by_status[ProcessStatus.ALIVE],
        by_status[ProcessStatus.UNKNOWN],
        by_status[None],
    )


async def reap(
    engine: Engine,
    sessions: SharedList,
    limits: Limits,
    path: LedgerPath,
    server: str,
    *,
    elsewhere: bool = False,
) -> Outcomes[bool]:
    """Destroy the sessions that dead owners left on *server*, and record their ends in the ledger.

    The URL *server* is the one of *engine*, as the ledger records it. With *elsewhere*, the
    sessions of owners of unknown state are destroyed too.

    Returns:
        One outcome per session, by its id. A launch without an id has one outcome, by its
        name, if no session is found.

    Raises:
        LedgerError: the ledger cannot be read.

    Cancellation:
        Launches that are not yet recorded as ended stay open for the next reaper.
    """
    engine.check()
    found = await in_file_thread(partial(survey, path, server))
    launches = found.dead + (found.unknown if elsewhere else [])
    reaper = _Reaper(engine, sessions, limits, Path(path))
    outcomes = await reaper.reap(launches)
    if outcomes:
        await reaper.write_ledger(_file.compact)
    return Outcomes("reap", outcomes)


def compute_time_left(launch: OpenLaunch, limits: Limits) -> float:
    """Return for how many more seconds the session of *launch* may appear in a list.

    The server may process a create for `create_timeout` seconds. Lists may not show its session for
    `settle` seconds more.
    """
    longest = limits.create_timeout + limits.settle
    # The clocks of two machines may differ. Never wait longer than for a launch that begins now.
    return min(longest, max(0.0, launch.at + longest - time.time()))


@final
@frozen
class _Reaper:
    engine: Engine
    sessions: SharedList
    limits: Limits
    path: Path

    async def reap(self, launches: Sequence[OpenLaunch]) -> list[Outcome[bool]]:
        """Destroy the sessions of known ids, and look for the others by their names."""
        known = [launch for launch in launches if launch.session_id]
        searched = [launch for launch in launches if not launch.session_id]
        if known:
            try:
                snapshot = await self.sessions.since_with_retry(anyio.current_time())
            except RequestError as error:
                return [evolve(error.failure, key=launch.key) for launch in launches]

            for launch in known.copy():
                other = _find_other_name(launch, snapshot)
                if other is not None:
                    # The response to the create was wrong.
                    logger.error("the ledger has the id of session %s for %s", other, launch.name)
                    known.remove(launch)
                    searched.append(evolve(launch, session_id=None))
        return await self.destroy_known(known) + await self.search(searched)

    async def destroy_known(self, launches: Sequence[OpenLaunch]) -> list[Outcome[bool]]:
        """Destroy sessions of known ids, and others of the same names, if a response was wrong."""
        now, clock = anyio.current_time(), time.time()
        open_launches, outcomes = list(launches), dict[str, Outcome[bool]]()
        while keys := [each.key for each in open_launches if each.key not in outcomes]:
            for launch in launches:
                self.sessions.history.record_created(launch.key, now + min(0.0, launch.at - clock))
            destroyed = await destroy(self.engine, self.sessions, self.limits, keys)
            outcomes |= {outcome.key: outcome for outcome in destroyed}
            open_launches += self._find_others(launches)
        # If the server made two sessions for a launch, close the launch only when both are gone.
        kept = {_get_identity(each) for each in open_launches if not outcomes[each.key].ok}
        await self.close([launch for launch in launches if _get_identity(launch) not in kept])
        return list(outcomes.values())

    def _find_others(self, launches: Iterable[OpenLaunch]) -> list[OpenLaunch]:
        """Find the sessions in the last list that have the names of launches."""
        by_name = {launch.name.lower(): launch for launch in launches if _has_token(launch)}
        listed = {} if self.sessions.last is None else self.sessions.last.sessions
        return [
            evolve(by_name[info.name], session_id=key)
            for key, info in listed.items()
            if info.name in by_name
        ]

    async def search(self, launches: Sequence[OpenLaunch]) -> list[Outcome[bool]]:
        """Look for sessions of unknown ids, until none of them can still appear."""
        now = anyio.current_time()
        due = {launch: now + compute_time_left(launch, self.limits) for launch in launches}
        outcomes: list[Outcome[bool]] = []
        backoff = Backoff(*_SEARCH_INTERVALS)
        while due:
            now = anyio.current_time()
            try:
                snapshot = await self.sessions.since_with_retry(now)
            except RequestError as error:
                return outcomes + [evolve(error.failure, key=launch.key) for launch in due]

            outcomes += await self._resolve_listed(due, snapshot)
            outcomes += _drop_undecided(due, now - self.limits.settle)
            if due:
                later = [time for time in due.values() if time > now]
                await anyio.sleep_until(min([now + backoff.next(), *later]))
        return outcomes

    async def _resolve_listed(
        self, due: dict[OpenLaunch, float], snapshot: Snapshot
    ) -> list[Outcome[bool]]:
        """Handle the launches that a list decides, and remove them from *due*.

        *due* has the time until which the session of each may appear.
        """
        by_name: dict[str, list[SessionInfo]] = defaultdict(list)
        for session in snapshot.sessions.values():
            by_name[session.name].append(session)

        # The server converts all names to lower case.
        seen = {launch: by_name[launch.name.lower()] for launch in due}
        decided = [
            launch
            for launch in due
            if seen[launch] or (snapshot.began >= due[launch] and snapshot.is_sound)
        ]
        for launch in decided:
            del due[launch]

        absent = [launch for launch in decided if not seen[launch]]
        ours = [launch for launch in decided if seen[launch] and _has_token(launch)]
        ambiguous = [launch for launch in decided if seen[launch] and not _has_token(launch)]
        await self.close(absent)
        ended = await self.destroy_known(
            [evolve(launch, session_id=session.id) for launch in ours for session in seen[launch]]
        )
        gone = [Success(launch.key, True) for launch in absent]
        failed = [_to_ambiguous_failure(launch, seen[launch]) for launch in ambiguous]
        return [*gone, *ended, *failed]

    async def close(self, launches: Sequence[OpenLaunch]) -> None:
        """Record in the ledger that launches have ended."""
        if launches:
            lines = encode(Event.ENDED, launches)
            await self.write_ledger(lambda path: _file.append(path, lines))

    async def write_ledger(self, work: Callable[[Path], None]) -> None:
        """Change the ledger; on an error, log it: a later reaper repeats the work without harm."""
        write = partial(in_file_thread, partial(work, self.path))
        try:
            await run_shielded(write, math.inf)
        except LedgerError as error:
            logger.warning("the ledger still lists reaped sessions as open: %s", error)


def _drop_undecided(due: dict[OpenLaunch, float], until: float) -> list[Outcome[bool]]:
    """Return failures for launches that no list could decide until then, and remove them."""
    undecided = [launch for launch, time in due.items() if time < until]
    for launch in undecided:
        del due[launch]
    message = "the lists have elements that cannot be identified, or are empty without a reason"
    return [Failure(launch.key, FailureKind.UNKNOWN_EFFECT, message) for launch in undecided]


def _find_other_name(launch: OpenLaunch, snapshot: Snapshot) -> str | None:
    """Return the name of the session with the id of a launch, if it is not that of the launch."""
    info = snapshot.sessions.get(launch.session_id or "")
    return None if info is None or info.name in {"", launch.name.lower()} else info.name


def _get_identity(launch: OpenLaunch) -> object:
    return launch.owner, launch.token


def _has_token(launch: OpenLaunch) -> bool:
    """Return whether the name ends in the token of the launch, so that it is unique."""
    return launch.name.endswith(f"-{launch.token}")


def _to_ambiguous_failure(launch: OpenLaunch, sessions: Iterable[SessionInfo]) -> Failure:
    ids = ", ".join(session.id for session in sessions)
    message = (
        f"{ids} has this name, which was launched without a token, so it may be another "
        "user's: destroy it if it is yours"
    )
    return Failure(launch.key, FailureKind.UNKNOWN_EFFECT, message)
