"""The machine under a platform in memory: sessions that start, run and end when they should.

It has no tasks and no timers. Whoever looks at the platform lets what is due by then happen, in the
order of time.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from itertools import count

from attrs import define, field, frozen

from kaleden.local import Forget, Platform, Session, Start, Stop

Change = Callable[[float], None]


@frozen
class Script:
    """What sessions do.

    Attributes:
        start_delay: seconds from having room to running.
        duration: seconds that a session runs.
        fails: whether it ends as Failed.
        log: what it has written, so many seconds after it began to run.
    """

    start_delay: Callable[[Session], float]
    duration: Callable[[Session], float]
    fails: Callable[[Session], bool]
    log: Callable[[Session, float], str]


@define(eq=False)
class _Process:
    """A session's process: from when to when it runs."""

    session: Session
    began: float | None = None
    ended: float | None = None


@define(eq=False)
class Machine:
    """Carries out the orders of a `Platform` in virtual time, and reports to it.

    Args:
        platform: who gives the orders.
        script: what the sessions do.
        changed: called with the time whenever anything on the platform has changed.
    """

    platform: Platform
    script: Script
    changed: Change
    _processes: dict[str, _Process] = field(init=False, factory=dict[str, _Process])
    _due: list[tuple[float, int, Change]] = field(
        init=False, factory=list[tuple[float, int, Change]]
    )
    _numbers: Iterator[int] = field(init=False, factory=count)

    def advance(self, now: float) -> None:
        """Let happen what is due by *now*."""
        self.settle(now)
        while self._due and self._due[0][0] <= now:
            due, _, happen = heapq.heappop(self._due)
            self.platform.advance(due)
            happen(due)
            self.settle(due)
            self.changed(due)
        self.platform.advance(now)
        self.settle(now)
        # Nobody writes down here what has changed, and a long test would pile it up.
        self.platform.take_changes()

    def settle(self, now: float) -> None:
        """Carry out what the platform has ordered."""
        while orders := self.platform.take_orders():
            for order in orders:
                match order:
                    case Start(session):
                        self._start(session, now)
                    case Stop(key):
                        self._end(key, now, None)
                    case Forget(key):
                        self._processes.pop(key, None)

    def log(self, key: str, now: float) -> str:
        """Give what a session has written by *now*."""
        process = self._processes.get(key)
        if process is None or process.began is None:
            return ""
        end = now if process.ended is None else process.ended
        # So long after the epoch, a float is no finer than that.
        return self.script.log(process.session, round(end - process.began, 6))

    def _at(self, due: float, happen: Change) -> None:
        heapq.heappush(self._due, (due, next(self._numbers), happen))

    def _start(self, session: Session, now: float) -> None:
        process = self._processes[session.key] = _Process(session)
        due = now + self.script.start_delay(session)
        self._at(due, lambda time: self._run(process, time))

    def _run(self, process: _Process, now: float) -> None:
        if process.ended is not None:
            return
        session = process.session
        process.began = now
        self.platform.started(session.key, now)
        code = int(self.script.fails(session))
        due = now + self.script.duration(session)
        self._at(due, lambda time: self._end(session.key, time, code))

    def _end(self, key: str, now: float, code: int | None) -> None:
        process = self._processes.get(key)
        if process is not None and process.ended is None:
            process.ended = now
            self.platform.ended(key, now, code)
