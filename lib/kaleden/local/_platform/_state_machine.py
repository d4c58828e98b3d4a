"""`Platform`: what happens to sessions, as a pure state machine.

It does no I/O and has no clock: callers pass the time, in seconds since the epoch, and it never
goes back. What has to be done in the world it gives as orders (`take_orders`); what was done it
is told (`started`, `ended`, `measured`). So the same machine serves real processes, a transport in
memory, and a test that lets four days pass in a line.
"""

from __future__ import annotations

import heapq
import random
import string
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from typing import final

from attrs import define, field

from kaleden.local._platform._model import (
    Forget,
    HTTPError,
    Kind,
    Order,
    Phase,
    Session,
    Settings,
    Spec,
    Start,
    Status,
    Stop,
    invalid,
)

_SLACK = 64


@final
@define
class Agenda:
    """One date for each key, the earliest first."""

    _dates: dict[str, float] = field(init=False, factory=dict[str, float])
    # Holds dates that were changed or struck off as well, up to as many as there are others.
    _heap: list[tuple[float, str]] = field(init=False, factory=list[tuple[float, str]])

    def put(self, key: str, date: float) -> None:
        """Note a date, in place of the one that the key may have."""
        self._dates[key] = date
        heapq.heappush(self._heap, (date, key))
        if len(self._heap) > 2 * len(self._dates) + _SLACK:
            self._heap = [(date, key) for key, date in self._dates.items()]
            heapq.heapify(self._heap)

    def strike_off(self, key: str) -> None:
        """Forget the key's date, if it has one."""
        self._dates.pop(key, None)

    def take_due(self, now: float) -> Iterator[str]:
        """Take the keys whose dates have come, the earliest first; others may be put meanwhile."""
        while self._heap and self._heap[0][0] <= now:
            date, key = heapq.heappop(self._heap)
            if self._dates.get(key) == date:
                del self._dates[key]
                yield key

    def __len__(self) -> int:
        return len(self._heap)


@define
class Platform:
    """The sessions of a platform, and the rules by which they live.

    Args:
        settings: capacity and lifetimes.
        rng: where ids come from. An id opens an interactive session's page, so the default is the
            system's generator.
        limits: interactive sessions that single users may have at a time, by their names; the
            others may have what the settings say.
    """

    settings: Settings
    rng: random.Random = field(factory=random.SystemRandom)
    limits: dict[str, int] = field(factory=dict[str, int])
    _sessions: dict[str, Session] = field(init=False, factory=dict[str, Session])
    _of_user: dict[str, dict[str, Session]] = field(
        init=False, factory=dict[str, dict[str, Session]]
    )
    # Deleted, so in no list any more, and still holding what they were given.
    _leaving: dict[str, Session] = field(init=False, factory=dict[str, Session])
    _queue: deque[str] = field(init=False, factory=deque[str])
    _agenda: Agenda = field(init=False, factory=Agenda)
    _orders: list[Order] = field(init=False, factory=list[Order])
    _changed: set[str] = field(init=False, factory=set[str])
    _millicores: int = field(init=False, default=0)
    _ram: int = field(init=False, default=0)
    _closed: bool = field(init=False, default=False)

    # Asking

    def find(self, user: str, id_: str, appid: str | None = None) -> Session | None:
        """Look up a session (or a desktop app) of this user."""
        key = id_ if appid is None else f"{id_}/{appid}"
        return self._of_user.get(user, {}).get(key)

    def of_user(self, user: str) -> Iterator[Session]:
        """Iterate over the user's sessions and desktop apps, oldest first."""
        return iter(self._of_user.get(user, {}).values())

    def anyones(self, id_: str) -> Session | None:
        """Look up a session, whosever it is."""
        return self._sessions.get(id_)

    def everyones(self) -> Iterator[Session]:
        """Iterate over the sessions and desktop apps of all users, oldest first."""
        return iter(self._sessions.values())

    def count(self) -> dict[Status, int]:
        """Count the sessions of all users, by status."""
        return dict(Counter(session.status for session in self._sessions.values()))

    @property
    def reserved(self) -> tuple[int, int]:
        """The millicores and the bytes of memory that are given away now."""
        return self._millicores, self._ram

    def limit(self, user: str) -> int:
        """Tell how many interactive sessions the user may have at a time."""
        return self.limits.get(user, self.settings.max_interactive_sessions)

    def check_limit(self, user: str) -> None:
        """Refuse if the user may not have one more interactive session."""
        limit = self.limit(user)
        active = sum(
            session.spec.kind.interactive and session.status in (Status.PENDING, Status.RUNNING)
            for session in self.of_user(user)
        )
        if active >= limit:
            raise invalid(f"User {user} has reached the maximum of {limit} active sessions.")

    # Doing

    def create(self, user: str, spec: Spec, now: float) -> Session:
        """Take in a session; it starts as soon as there is room.

        Args:
            user: whose it is.
            spec: what was asked for.
            now: seconds since the epoch.

        Returns:
            The session, Pending, or already further if it needs no process.

        Raises:
            Refused: this user has too many interactive sessions.
        """
        if spec.kind.interactive:
            self.check_limit(user)
        return self._take_in(Session(self.new_id(), user, spec, now, self._lifetime(spec)), now)

    def create_app(self, user: str, desktop_id: str, spec: Spec, now: float) -> Session:
        """Take in an app of a desktop.

        Raises:
            Refused: the user has no such desktop running.
        """
        desktop = self.find(user, desktop_id)
        if (
            desktop is None
            or desktop.spec.kind is not Kind.DESKTOP
            or desktop.status is not Status.RUNNING
        ):
            raise HTTPError(404, f"desktop session {desktop_id} not found")

        appid = self._new_name(3)
        session = Session(desktop_id, user, spec, now, self._lifetime(spec), appid=appid)
        return self._take_in(session, now)

    def delete(self, user: str, id_: str, now: float, appid: str | None = None) -> bool:
        """Delete a session, with its desktop apps; it is out of every list at once.

        Returns:
            Whether there was one. The server does not tell.
        """
        session = self.find(user, id_, appid)
        if session is None:
            return False
        if session.spec.kind is Kind.DESKTOP:
            for app in [s for s in self.of_user(user) if s.id == id_ and s.appid is not None]:
                self._remove(app)
        self._remove(session)
        self._admit(now)
        return True

    def renew(self, user: str, id_: str, now: float) -> None:
        """Move a session's deadline to a full interactive lifetime from now, if that is later.

        Raises:
            Refused: the session is not active: unknown, suspended or finished.
        """
        session = self.find(user, id_)
        if session is None or not session.phase.active or session.started is None:
            raise invalid(f"No active job for user {user} with session {id_}")
        for renewed in [s for s in self.of_user(user) if s.id == id_ and s.started is not None]:
            elapsed = now - (renewed.started or now)
            renewed.lifetime = max(renewed.lifetime, elapsed + self.settings.interactive_lifetime)
            self._changed.add(renewed.key)

    def advance(self, now: float) -> None:
        """Let time pass: end what is past its deadline, forget what finished long ago."""
        for key in self._agenda.take_due(now):
            self._meet(self._sessions[key], now)
        self._admit(now)

    # What the runner does, and reports

    def take_orders(self) -> list[Order]:
        """Take the orders that were given since the last call, oldest first."""
        orders, self._orders = self._orders, []
        return orders

    def take_changes(self) -> list[tuple[str, Session | None]]:
        """Take what changed since the last call: keys, and the sessions, or None where gone."""
        changed, self._changed = self._changed, set()
        return [(key, self._sessions.get(key)) for key in sorted(changed)]

    def started(self, key: str, now: float) -> None:
        """Hear that a session's process runs."""
        session = self._sessions.get(key)
        if session is not None and session.phase is Phase.STARTING:
            self._run(session, now)

    def ended(
        self, key: str, now: float, code: int | None, why: tuple[str, str] | None = None
    ) -> None:
        """Hear that none of a session's processes is left.

        Args:
            key: the session's.
            now: seconds since the epoch.
            code: the exit status of its command; None if it was not started or was killed.
            why: reason and message of a warning to add to its events.
        """
        gone = self._leaving.pop(key, None)
        if gone is not None:
            self._release(gone)
            self._orders.append(Forget(key))
        session = self._sessions.get(key)
        if session is not None and not session.phase.finished:
            if why is not None:
                session.note("Warning", *why, now)
            failed = code != 0 or session.phase is Phase.EXPIRING
            self._finish(session, Phase.FAILED if failed else Phase.SUCCEEDED, now)
        self._admit(now)

    def measured(self, key: str, ram: int, cores: float | None) -> None:
        """Hear what a session uses: bytes of memory, and cores since the last time."""
        session = self._sessions.get(key)
        if session is not None and session.phase is Phase.RUNNING:
            session.ram_in_use = ram
            session.cores_in_use = cores

    def close(self) -> None:
        """Start nothing from now on: who waits, waits on."""
        self._closed = True

    def restore(self, sessions: Iterable[Session], now: float) -> None:
        """Take back the sessions of an earlier life, in which their processes ended.

        Those that waited wait again, in their old order; interactive ones, which are no processes,
        run on; headless ones that ran are Failed.
        """
        for session in sorted(sessions, key=lambda s: s.created):
            self._enter(session)
            if session.phase.waiting:
                self._queue.append(session.key)
            elif session.phase.holding:
                self._hold(session)
                if session.spec.kind is Kind.HEADLESS:
                    session.note("Warning", "NodeNotReady", "The platform was restarted", now)
                    self._finish(session, Phase.FAILED, now)
            self._schedule(session)
        self.advance(now)

    # Inside

    def new_id(self) -> str:
        """Make an id that is not in use: the server's are a letter and seven letters or digits."""
        while (id_ := self._new_name(8)) in self._sessions or id_ in self._leaving:
            pass
        return id_

    def _new_name(self, length: int) -> str:
        rest = self.rng.choices(string.ascii_lowercase + string.digits, k=length - 1)
        return self.rng.choice(string.ascii_lowercase) + "".join(rest)

    def _lifetime(self, spec: Spec) -> float:
        if spec.kind is Kind.HEADLESS:
            return self.settings.headless_lifetime
        return self.settings.interactive_lifetime

    def _enter(self, session: Session) -> None:
        self._sessions[session.key] = session
        self._of_user.setdefault(session.user, {})[session.key] = session
        self._changed.add(session.key)

    def _take_in(self, session: Session, now: float) -> Session:
        self._enter(session)
        self._queue.append(session.key)
        self._admit(now)
        if session.phase is Phase.QUEUED and not self.settings.queue:
            session.phase = Phase.UNSCHEDULED
            session.started = now
            session.note("Warning", "FailedScheduling", self._shortage(session), now)
            self._schedule(session)
        return session

    def _shortage(self, session: Session) -> str:
        """Why there is no room, in a scheduler's words."""
        short = [
            f"1 Insufficient {what}"
            for what, free, asked in (
                ("cpu", self.settings.millicores - self._millicores, session.spec.millicores),
                ("memory", self.settings.ram - self._ram, session.spec.ram),
            )
            if asked > free
        ]
        waiting = ["1 pod waits before this one"]
        return f"0/1 nodes are available: {', '.join(short or waiting)}."

    def _fits(self, spec: Spec) -> bool:
        return (
            self._millicores + spec.millicores <= self.settings.millicores
            and self._ram + spec.ram <= self.settings.ram
        )

    def _admit(self, now: float) -> None:
        """Give room to those who wait, strictly in their order."""
        while self._queue and not self._closed:
            session = self._sessions.get(self._queue[0])
            if session is not None and session.phase.waiting:
                if not self._fits(session.spec):
                    return
                self._begin(session, now)
            self._queue.popleft()

    def _begin(self, session: Session, now: float) -> None:
        self._hold(session)
        session.phase = Phase.STARTING
        if session.started is None:
            session.started = now
            self._schedule(session)
        pod = f"skaha-{session.spec.kind}-{session.user}-{session.id}"
        session.note("Normal", "Scheduled", f"Successfully assigned {pod} to this machine", now)
        if session.spec.kind is Kind.HEADLESS:
            self._orders.append(Start(session))
        else:
            self._run(session, now)
        self._changed.add(session.key)

    def _run(self, session: Session, now: float) -> None:
        session.phase = Phase.RUNNING
        session.note("Normal", "Started", "Started container", now)
        self._changed.add(session.key)

    def _hold(self, session: Session) -> None:
        self._millicores += session.spec.millicores
        self._ram += session.spec.ram

    def _release(self, session: Session) -> None:
        self._millicores -= session.spec.millicores
        self._ram -= session.spec.ram

    def _finish(self, session: Session, phase: Phase, now: float) -> None:
        if session.phase.holding:
            self._release(session)
        session.phase = phase
        session.ended = now
        session.ram_in_use = session.cores_in_use = None
        self._schedule(session)
        self._changed.add(session.key)

    def _due_time(self, session: Session) -> float | None:
        """When the session changes by itself next: deadline, or the time to be forgotten."""
        if session.ended is None:
            return session.expires
        if session.spec.kind is Kind.HEADLESS:
            return session.ended + self.settings.headless_kept
        return session.ended + self.settings.interactive_kept

    def _schedule(self, session: Session) -> None:
        due = self._due_time(session)
        if due is not None:
            self._agenda.put(session.key, due)

    def _meet(self, session: Session, now: float) -> None:
        """Do what has become due for the session, or wait on if that was put off meanwhile."""
        due = self._due_time(session)
        if due is None or session.phase is Phase.EXPIRING:
            return
        if due > now:
            self._schedule(session)
        elif session.phase.finished:
            self._remove(session)
        else:
            self._expire(session, now)

    def _expire(self, session: Session, now: float) -> None:
        message = "Job was active longer than specified deadline"
        session.note("Warning", "DeadlineExceeded", message, now)
        self._changed.add(session.key)
        if session.spec.kind is Kind.HEADLESS and session.phase.holding:
            session.phase = Phase.EXPIRING
            self._orders.append(Stop(session.key))
        else:
            self._finish(session, Phase.FAILED, now)

    def _remove(self, session: Session) -> None:
        """Take the session out of every list; if processes may live, have them ended."""
        key = session.key
        del self._sessions[key]
        del self._of_user[session.user][key]
        self._agenda.strike_off(key)
        self._changed.add(key)
        if not session.phase.holding:
            self._orders.append(Forget(key))
        elif session.spec.kind is Kind.HEADLESS:
            self._leaving[key] = session
            self._orders.append(Stop(key))
        else:
            self._release(session)
            self._orders.append(Forget(key))
