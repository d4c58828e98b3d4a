"""The simulated sessions of a platform in memory.

They need no tasks and no timers. Each access to the platform first carries out the events that are
due by then, in order of time.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from itertools import count

from attrs import define, field, frozen

from kaleden.local import Forget, Platform, Session, Start, Stop

TimeCallback = Callable[[float], None]


@frozen
class Script:
    """The behaviour of the sessions. The functions are those of `MemoryTransport`."""

    start_delay: Callable[[Session], float]
    duration: Callable[[Session], float]
    fails: Callable[[Session], bool]
    log: Callable[[Session, float], str]


@define(eq=False)
class _Process:
    """A session's process, with the times at which it began and ended."""

    session: Session
    began: float | None = None
    ended: float | None = None


@define(eq=False)
class SessionSimulator:
    """Carry out the orders of a `Platform` in virtual time, and report to it.

    *on_change* is called with the time after each change on the platform.
    """

    platform: Platform
    script: Script
    on_change: TimeCallback
    _processes: dict[str, _Process] = field(init=False, factory=dict[str, _Process])
    _due: list[tuple[float, int, TimeCallback]] = field(
        init=False, factory=list[tuple[float, int, TimeCallback]]
    )
    _numbers: Iterator[int] = field(init=False, factory=count)

    def advance(self, now: float) -> None:
        """Carry out all events that are due by *now*."""
        self.apply_orders(now)
        while self._due and self._due[0][0] <= now:
            due, _, callback = heapq.heappop(self._due)
            self.platform.advance(due)
            callback(due)
            self.apply_orders(due)
            self.on_change(due)
        self.platform.advance(now)
        self.apply_orders(now)
        # Drop the platform's record of changes, which is not used here and would grow.
        self.platform.take_changes()

    def apply_orders(self, now: float) -> None:
        """Carry out the orders of the platform."""
        while orders := self.platform.take_orders():
            for order in orders:
                match order:
                    case Start(session):
                        self._start(session, now)
                    case Stop(key):
                        self._end(key, now, None)
                    case Forget(key):
                        self._processes.pop(key, None)

    def read_log(self, key: str, now: float) -> str:
        """Return the log of a session at the time *now*."""
        process = self._processes.get(key)
        if process is None or process.began is None:
            return ""
        end = now if process.ended is None else process.ended
        # At present-day times since the epoch, a float has a resolution of about a microsecond.
        return self.script.log(process.session, round(end - process.began, 6))

    def _schedule(self, due: float, callback: TimeCallback) -> None:
        heapq.heappush(self._due, (due, next(self._numbers), callback))

    def _start(self, session: Session, now: float) -> None:
        process = self._processes[session.key] = _Process(session)
        due = now + self.script.start_delay(session)
        self._schedule(due, lambda time: self._run(process, time))

    def _run(self, process: _Process, now: float) -> None:
        if process.ended is not None:
            return
        session = process.session
        process.began = now
        self.platform.started(session.key, now)
        code = int(self.script.fails(session))
        due = now + self.script.duration(session)
        self._schedule(due, lambda time: self._end(session.key, time, code))

    def _end(self, key: str, now: float, code: int | None) -> None:
        process = self._processes.get(key)
        if process is not None and process.ended is None:
            process.ended = now
            self.platform.ended(key, now, code)
