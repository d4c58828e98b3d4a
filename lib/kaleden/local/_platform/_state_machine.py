"""`Platform`: the sessions of the embedded platform, as a state machine without I/O.

It has no clock: callers pass the time, in seconds since the epoch, which must not go back. The
caller takes the actions to perform with `Platform.take_orders`, and reports the results with
`Platform.started`, `Platform.ended` and `Platform.measured`. So the same state machine serves real
processes, an in-memory transport, and tests that advance the time by days.
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
)

_STALE_MARGIN = 64


@final
@define
class TimerQueue:
    """A priority queue of times, with at most one time for each key."""

    _times: dict[str, float] = field(init=False, factory=dict[str, float])
    # Stale entries stay in the heap: times that were replaced or discarded. `set` rebuilds the
    # heap when they outnumber the current ones by more than _STALE_MARGIN.
    _heap: list[tuple[float, str]] = field(init=False, factory=list[tuple[float, str]])

    def set(self, key: str, time: float) -> None:
        """Set the key's time, and replace an earlier one."""
        self._times[key] = time
        heapq.heappush(self._heap, (time, key))
        if len(self._heap) > 2 * len(self._times) + _STALE_MARGIN:
            self._heap = [(time, key) for key, time in self._times.items()]
            heapq.heapify(self._heap)

    def discard(self, key: str) -> None:
        """Remove the key's time, if it has one."""
        self._times.pop(key, None)

    def pop_due(self, now: float) -> Iterator[str]:
        """Remove and yield the keys with a time not later than *now*, earliest first.

        Times may be set or discarded during the iteration.
        """
        while self._heap and self._heap[0][0] <= now:
            time, key = heapq.heappop(self._heap)
            if self._times.get(key) == time:
                del self._times[key]
                yield key

    def __len__(self) -> int:
        return len(self._heap)


@define
class Platform:
    """The sessions of a platform, and the rules for their lives.

    Args:
        settings: capacity and lifetimes.
        rng: the generator of ids. The id is the secret of an interactive session's page, so the
            default is the operating system's generator.
        limits: the maximum number of interactive sessions for single users, by user name. The
            limit of other users is in *settings*.
    """

    settings: Settings
    rng: random.Random = field(factory=random.SystemRandom)
    limits: dict[str, int] = field(factory=dict[str, int])
    _sessions: dict[str, Session] = field(init=False, factory=dict[str, Session])
    _by_user: dict[str, dict[str, Session]] = field(
        init=False, factory=dict[str, dict[str, Session]]
    )
    # Deleted sessions with processes that have not ended. They are not listed, but their capacity
    # is still reserved.
    _terminating: dict[str, Session] = field(init=False, factory=dict[str, Session])
    _queue: deque[str] = field(init=False, factory=deque[str])
    _timers: TimerQueue = field(init=False, factory=TimerQueue)
    _orders: list[Order] = field(init=False, factory=list[Order])
    _changed: set[str] = field(init=False, factory=set[str])
    _millicores: int = field(init=False, default=0)
    _ram: int = field(init=False, default=0)
    _closed: bool = field(init=False, default=False)

    # Queries

    def find(self, user: str, id_: str, appid: str | None = None) -> Session | None:
        """Return a session of this user, or a desktop app; None if it does not exist."""
        key = id_ if appid is None else f"{id_}/{appid}"
        return self._by_user.get(user, {}).get(key)

    def of_user(self, user: str) -> Iterator[Session]:
        """Iterate over the user's sessions and desktop apps, oldest first."""
        return iter(self._by_user.get(user, {}).values())

    def anyones(self, id_: str) -> Session | None:
        """Return a session of any user; None if it does not exist."""
        return self._sessions.get(id_)

    def everyones(self) -> Iterator[Session]:
        """Iterate over the sessions and desktop apps of all users, oldest first."""
        return iter(self._sessions.values())

    def count(self) -> dict[Status, int]:
        """Count the sessions of all users, by status."""
        return dict(Counter(session.status for session in self._sessions.values()))

    @property
    def reserved(self) -> tuple[int, int]:
        """The reserved capacity: millicores, and bytes of memory."""
        return self._millicores, self._ram

    def limit(self, user: str) -> int:
        """Return how many interactive sessions the user may have at a time."""
        return self.limits.get(user, self.settings.max_interactive_sessions)

    def check_limit(self, user: str) -> None:
        """Check that the user may have one more interactive session.

        Raises:
            HTTPError: 400, the limit is reached.
        """
        limit = self.limit(user)
        active = sum(
            session.spec.kind.interactive and session.status in (Status.PENDING, Status.RUNNING)
            for session in self.of_user(user)
        )
        if active >= limit:
            raise HTTPError(400, f"User {user} has reached the maximum of {limit} active sessions.")

    # Changes

    def create(self, user: str, spec: Spec, now: float) -> Session:
        """Create a session; it starts as soon as there is capacity.

        Args:
            user: the owner.
            spec: the specification.
            now: seconds since the epoch.

        Returns:
            The session. It is Pending, or Running if it needs no process.

        Raises:
            HTTPError: 400, this user has too many interactive sessions.
        """
        if spec.kind.interactive:
            self.check_limit(user)
        return self._enqueue(Session(self.new_id(), user, spec, now, self._get_lifetime(spec)), now)

    def create_app(self, user: str, desktop_id: str, spec: Spec, now: float) -> Session:
        """Create a desktop app.

        Raises:
            HTTPError: 404, the user has no running desktop with this id.
        """
        desktop = self.find(user, desktop_id)
        if (
            desktop is None
            or desktop.spec.kind is not Kind.DESKTOP
            or desktop.status is not Status.RUNNING
        ):
            raise HTTPError(404, f"desktop session {desktop_id} not found")

        appid = self._make_name(3)
        session = Session(desktop_id, user, spec, now, self._get_lifetime(spec), appid=appid)
        return self._enqueue(session, now)

    def delete(self, user: str, id_: str, now: float, appid: str | None = None) -> bool:
        """Delete a session and its desktop apps. They disappear from lists immediately.

        Returns:
            Whether the session existed. The server's response does not show this.
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
        """Extend a session's deadline to a full interactive lifetime from now, if that is later.

        Raises:
            HTTPError: 400, the session is not active: unknown, suspended or finished.
        """
        session = self.find(user, id_)
        if session is None or not session.phase.active or session.started is None:
            raise HTTPError(400, f"No active job for user {user} with session {id_}")
        for renewed in [s for s in self.of_user(user) if s.id == id_ and s.started is not None]:
            elapsed = now - (renewed.started or now)
            renewed.lifetime = max(renewed.lifetime, elapsed + self.settings.interactive_lifetime)
            self._changed.add(renewed.key)

    def advance(self, now: float) -> None:
        """Advance the time: end sessions past their deadline, and remove old finished ones."""
        for key in self._timers.pop_due(now):
            self._handle_due(self._sessions[key], now)
        self._admit(now)

    # The interface of the runner

    def take_orders(self) -> list[Order]:
        """Return the orders since the last call, oldest first."""
        orders, self._orders = self._orders, []
        return orders

    def take_changes(self) -> list[tuple[str, Session | None]]:
        """Return the changes since the last call: keys, with sessions or None if removed."""
        changed, self._changed = self._changed, set()
        return [(key, self._sessions.get(key)) for key in sorted(changed)]

    def started(self, key: str, now: float) -> None:
        """Record that a session's process has started."""
        session = self._sessions.get(key)
        if session is not None and session.phase is Phase.STARTING:
            self._set_running(session, now)

    def ended(
        self, key: str, now: float, code: int | None, why: tuple[str, str] | None = None
    ) -> None:
        """Record that all processes of a session have ended.

        Args:
            key: the session's key.
            now: seconds since the epoch.
            code: the exit status of its command; None if it was not started or was killed.
            why: the reason and the message of a warning to add to its events.
        """
        deleted = self._terminating.pop(key, None)
        if deleted is not None:
            self._release(deleted)
            self._orders.append(Forget(key))
        session = self._sessions.get(key)
        if session is not None and not session.phase.finished:
            if why is not None:
                session.note("Warning", *why, now)
            failed = code != 0 or session.phase is Phase.EXPIRING
            self._finish(session, Phase.FAILED if failed else Phase.SUCCEEDED, now)
        self._admit(now)

    def measured(self, key: str, ram: int, cores: float | None) -> None:
        """Record the usage of a session: bytes of memory, and cores since the last measurement."""
        session = self._sessions.get(key)
        if session is not None and session.phase is Phase.RUNNING:
            session.ram_in_use = ram
            session.cores_in_use = cores

    def close(self) -> None:
        """Start no more sessions. Waiting sessions go on waiting."""
        self._closed = True

    def restore(self, sessions: Iterable[Session], now: float) -> None:
        """Restore the sessions of an earlier run of the platform. Their processes have ended.

        Waiting sessions wait again, in their old order. Interactive sessions, which have no
        processes, continue to run. Headless sessions that were running become Failed.
        """
        for session in sorted(sessions, key=lambda s: s.created):
            self._add(session)
            if session.phase.waiting:
                self._queue.append(session.key)
            elif session.phase.holding:
                self._reserve(session)
                if session.spec.kind is Kind.HEADLESS:
                    session.note("Warning", "NodeNotReady", "The platform was restarted", now)
                    self._finish(session, Phase.FAILED, now)
            self._schedule(session)
        self.advance(now)

    # Internals

    def new_id(self) -> str:
        """Return an unused id. As on the server: a letter, then seven letters or digits."""
        while (id_ := self._make_name(8)) in self._sessions or id_ in self._terminating:
            pass
        return id_

    def _make_name(self, length: int) -> str:
        rest = self.rng.choices(string.ascii_lowercase + string.digits, k=length - 1)
        return self.rng.choice(string.ascii_lowercase) + "".join(rest)

    def _get_lifetime(self, spec: Spec) -> float:
        if spec.kind is Kind.HEADLESS:
            return self.settings.headless_lifetime
        return self.settings.interactive_lifetime

    def _add(self, session: Session) -> None:
        self._sessions[session.key] = session
        self._by_user.setdefault(session.user, {})[session.key] = session
        self._changed.add(session.key)

    def _enqueue(self, session: Session, now: float) -> Session:
        self._add(session)
        self._queue.append(session.key)
        self._admit(now)
        if session.phase is Phase.QUEUED and not self.settings.queue:
            session.phase = Phase.UNSCHEDULED
            session.started = now
            session.note("Warning", "FailedScheduling", self._describe_shortage(session), now)
            self._schedule(session)
        return session

    def _describe_shortage(self, session: Session) -> str:
        """Return the message of a Kubernetes scheduler for the missing capacity."""
        short = [
            f"1 Insufficient {resource}"
            for resource, free, requested in (
                ("cpu", self.settings.millicores - self._millicores, session.spec.millicores),
                ("memory", self.settings.ram - self._ram, session.spec.ram),
            )
            if requested > free
        ]
        waiting = ["1 pod waits before this one"]
        return f"0/1 nodes are available: {', '.join(short or waiting)}."

    def _fits(self, spec: Spec) -> bool:
        return (
            self._millicores + spec.millicores <= self.settings.millicores
            and self._ram + spec.ram <= self.settings.ram
        )

    def _admit(self, now: float) -> None:
        """Start waiting sessions while there is capacity, strictly in FIFO order."""
        while self._queue and not self._closed:
            session = self._sessions.get(self._queue[0])
            if session is not None and session.phase.waiting:
                if not self._fits(session.spec):
                    return
                self._start(session, now)
            self._queue.popleft()

    def _start(self, session: Session, now: float) -> None:
        self._reserve(session)
        session.phase = Phase.STARTING
        if session.started is None:
            session.started = now
            self._schedule(session)
        pod = f"skaha-{session.spec.kind}-{session.user}-{session.id}"
        session.note("Normal", "Scheduled", f"Successfully assigned {pod} to this machine", now)
        if session.spec.kind is Kind.HEADLESS:
            self._orders.append(Start(session))
        else:
            self._set_running(session, now)
        self._changed.add(session.key)

    def _set_running(self, session: Session, now: float) -> None:
        session.phase = Phase.RUNNING
        session.note("Normal", "Started", "Started container", now)
        self._changed.add(session.key)

    def _reserve(self, session: Session) -> None:
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

    def _compute_due_time(self, session: Session) -> float | None:
        """Return when the session changes next: its deadline, or when it is forgotten."""
        if session.ended is None:
            return session.expires
        if session.spec.kind is Kind.HEADLESS:
            return session.ended + self.settings.headless_kept
        return session.ended + self.settings.interactive_kept

    def _schedule(self, session: Session) -> None:
        due = self._compute_due_time(session)
        if due is not None:
            self._timers.set(session.key, due)

    def _handle_due(self, session: Session, now: float) -> None:
        """Expire or remove the session, or reschedule it if its due time was postponed."""
        due = self._compute_due_time(session)
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
        """Remove the session from all lists; order the end of its processes, if it has any."""
        key = session.key
        del self._sessions[key]
        del self._by_user[session.user][key]
        self._timers.discard(key)
        self._changed.add(key)
        if session.phase.holding and session.spec.kind is Kind.HEADLESS:
            self._terminating[key] = session
            self._orders.append(Stop(key))
            return
        if session.phase.holding:
            self._release(session)
        self._orders.append(Forget(key))
