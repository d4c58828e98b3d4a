"""The proof that a session is gone: what lists have shown of it, and when.

A list may lag behind: it may lack a session that was created a moment ago, show one that is gone,
or be empty for once. So no single list proves that a session which may be running is gone. The
proof that is due depends on what is known of the session:

- It was listed last as ended: one list without it.
- It was listed as able to run: two lists without it, one second apart, or five seconds once this
  client has seen a list lag.
- This client launched it, and no list has shown it: the same, but only lists count that began
  `Limits.settle` seconds after its create.
- Nothing is known of it: two lists without it, at the same distance.

After a delete that failed, the distance is five seconds.

A list is no proof if it has elements that cannot be identified, or if it is empty although sessions
are missing in it that were not deleted by this client. If it stays empty for half of
`Limits.settle`, or for five seconds where the session was deleted, it is believed.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final, final

from attrs import define, field, frozen

from kaleden._errors import FailureKind
from kaleden._results._batch import Failure
from kaleden._wire import SessionInfo, SessionStatus

_TOKEN: Final = re.compile("-[a-z2-7]{8}$")
"""The token at the end of the name of a session that a scope has launched."""

_PROOF_INTERVAL: Final = 1.0
_PROOF_INTERVAL_IF_LAGGING: Final = 5.0
"""Seconds between two lists that together prove a session gone."""

_EMPTY_ENOUGH: Final = 5.0
"""Seconds for which lists must have been empty, if a deleted session is to be missing in them."""

_FORGET_AFTER: Final = 3600.0
"""Seconds for which a launched session is remembered after the last list that showed it, and a
deleted one after its delete."""


@final
@frozen
class Snapshot:
    """The sessions of one list response.

    Attributes:
        began: when its request began, on the clock of the event loop. A change before that is in
            the list, unless the list lags; a later change may be missing.
        sessions: the sessions by id; applications of desktops by their own id.
        unreadable: the number of elements that are not sessions, or have no id.
        empty_for: seconds for which lists have been empty although sessions should be in them; None
            if this one is not, or is believed.
    """

    began: float
    sessions: dict[str, SessionInfo] = field(repr=False)
    unreadable: int = 0
    empty_for: float | None = None

    @property
    def is_sound(self) -> bool:
        """Whether a session that is not in it is missing in it for certain."""
        return self.empty_for is None and not self.unreadable


@define
class KnownSession:
    """A session that this client has launched or owns.

    Attributes:
        created: a time at which it existed, on the clock of the event loop.
        status: its status when it was listed last; None if no list has shown it.
        seen: when the last list that showed it began, or else the first list after it was known.
        missing_since: when the first list without it after that began; None if there is none.
        name: the unique name under which it was launched; None if there is none.
        other_name: its name in a list, if that is another: then the response to the create of
            *name* had the id of another session.
    """

    created: float
    status: SessionStatus | None = None
    seen: float | None = None
    missing_since: float | None = None
    name: str | None = None
    other_name: str | None = None

    def compare_name(self, info: SessionInfo | None) -> None:
        """Compare the name with that in a list; None if the last list does not show it."""
        if info is not None and self.name is not None:
            self.other_name = None if info.name in {"", self.name} else info.name


@final
class SessionHistory:
    """The sessions that a client has launched or deleted, as its lists have shown them.

    Args:
        settle: seconds after a create within which lists may not show its session.

    Attributes:
        lag_seen: whether a list has lacked a session that existed.
    """

    def __init__(self, settle: float) -> None:
        self.settle: float = settle
        self.lag_seen: bool = False
        self._known: dict[str, KnownSession] = {}
        # The deleted sessions, with the time of the list before: the last ones are the latest.
        self._deleted = OrderedDict[str, float]()
        self._started: set[str] = set()
        self._began = 0.0
        self._emptied_at: float | None = None
        self._last: dict[str, SessionInfo] = {}

    @property
    def proof_interval(self) -> float:
        """Seconds between two lists that together prove a session gone."""
        interval = _PROOF_INTERVAL_IF_LAGGING if self.lag_seen else _PROOF_INTERVAL
        return min(interval, self.settle)

    def get(self, key: str) -> KnownSession | None:
        """Return a session that this client has launched or owns."""
        return self._known.get(key)

    def was_listed(self, key: str) -> bool:
        """Return whether a list has shown a session that this client has launched or owns."""
        known = self._known.get(key)
        return known is not None and known.status is not None

    def may_exist(self, key: str, began: float) -> bool:
        """Return whether a session that is not in the list that began then may still exist."""
        known = self._known.get(key)
        if known is None or began < known.created + self.settle:
            return known is not None

        if known.status is None or known.status.is_terminal or known.missing_since is None:
            return False

        return began < known.missing_since + self.proof_interval

    def record_created(self, key: str, at: float) -> None:
        """Record a session that certainly existed at the time *at*."""
        info = self._last.get(key)
        self._known.setdefault(key, KnownSession(at, None if info is None else info.status))

    def record_name(self, key: str, name: str) -> None:
        """Record the unique name under which a known session was launched."""
        known = self._known.get(key)
        if known is not None:
            known.name = name
            known.compare_name(self._last.get(key))

    def find_other_name(self, key: str) -> str | None:
        """Return the name in the lists of a session that was launched under another name.

        The response to the create had the wrong id.
        """
        known = self._known.get(key)
        return None if known is None else known.other_name

    def record_seen(self, info: SessionInfo) -> None:
        """Record whether a session has been started, as another response than a list shows."""
        if is_started(info):
            self._started.add(info.id)

    def forget(self, key: str) -> None:
        """Forget a session that is gone."""
        self._known.pop(key, None)

    def has_started(self, key: str) -> bool:
        """Return whether a list has shown a session as started, even if it is Pending again."""
        return key in self._started

    def record_deleted(self, key: str) -> None:
        """Record that a delete of a session is being sent."""
        self._deleted[key] = self._began
        self._deleted.move_to_end(key)

    def is_young(self, key: str, now: float) -> bool:
        """Return whether lists may not show a session yet, as it was created a moment ago."""
        known = self._known.get(key)
        return known is not None and now < known.created + self.settle

    def record_list(
        self, began: float, sessions: dict[str, SessionInfo], unreadable: int
    ) -> Snapshot:
        """Record a list, and return it with a judgement on it."""
        snapshot = Snapshot(began, sessions, unreadable, self._measure_doubt(began, sessions))
        for key, known in list(self._known.items()):
            self._update(key, known, snapshot)
        started = {key for key, info in sessions.items() if is_started(info)}
        self._started = started | (self._started & (sessions.keys() | self._known.keys()))
        self._began, self._last = began, sessions
        while self._deleted and began > next(iter(self._deleted.values())) + _FORGET_AFTER:
            self._deleted.popitem(last=False)
        return snapshot

    def record_failure(self) -> None:
        """Record a list that failed: the next one that is empty is doubted anew."""
        if self._emptied_at is not None:
            self._emptied_at = math.inf

    def _measure_doubt(self, began: float, sessions: dict[str, SessionInfo]) -> float | None:
        """Return for how long lists have been empty although they should have sessions."""
        if sessions or (self._emptied_at is None and not self._expects_any(began)):
            self._emptied_at = None
            return None

        self._emptied_at = began if self._emptied_at is None else min(self._emptied_at, began)
        seconds = began - self._emptied_at
        return seconds if seconds < self.settle / 2 else None

    def _expects_any(self, began: float) -> bool:
        """Return whether a session should be in the list that began then."""
        if any(
            key not in self._deleted and not info.status.is_terminal
            for key, info in self._last.items()
        ):
            return True

        return any(
            key not in self._deleted and known.status is None and not self.is_young(key, began)
            for key, known in self._known.items()
        )

    def _update(self, key: str, known: KnownSession, snapshot: Snapshot) -> None:
        info = snapshot.sessions.get(key)
        if info is not None:
            self.lag_seen = self.lag_seen or known.missing_since is not None
            known.status, known.seen, known.missing_since = info.status, snapshot.began, None
            known.compare_name(info)
            return

        if known.seen is None:
            known.seen = snapshot.began
        if snapshot.began > known.seen + max(_FORGET_AFTER, self.settle):
            del self._known[key]
        elif snapshot.began > known.created and known.missing_since is None:
            known.missing_since = snapshot.began


@final
@define
class SessionState:
    """The state of one session, as the lists show that one task has seen.

    Attributes:
        key: the session.
        history: the sessions that the client has launched.
        longest_doubt: seconds after which elements that cannot be identified are taken for others.
        is_deleted: whether this client has deleted it, which explains that it is missing.
        needs_longer_proof: whether its last delete failed, so that it may not have had an effect.
        status: its status when it was listed last; None if it never was.
        has_started: whether a list has shown it as started, even if it is Pending again.
        has_start_time: whether the last list that showed it had its start time.
    """

    key: str
    history: SessionHistory
    longest_doubt: float = math.inf
    is_deleted: bool = False
    needs_longer_proof: bool = False
    status: SessionStatus | None = None
    has_started: bool = False
    has_start_time: bool = False
    _unreadable_when_listed: int = 0
    _unreadable: int = 0
    _doubtful_since: float | None = None
    _was_in_last: bool = False
    _absences: int = 0
    _first_absence: float = 0.0
    _last_absence: float = 0.0

    def __attrs_post_init__(self) -> None:
        known = self.history.get(self.key)
        if known is not None and self.status is None:
            self.status = known.status
        self.has_started = self.has_started or self.history.has_started(self.key)

    def update(self, snapshot: Snapshot) -> SessionInfo | None:
        """Update the state from a list; return the session as listed, or None."""
        info = snapshot.sessions.get(self.key)
        self._was_in_last = info is not None
        if info is None:
            self._record_absence(snapshot)
            return None

        if self._absences:
            self.history.lag_seen = True
        self._absences, self._doubtful_since = 0, None
        self.status, self._unreadable_when_listed = info.status, snapshot.unreadable
        self.has_start_time = info.start_time is not None
        self.has_started = self.has_started or is_started(info)
        return info

    def _record_absence(self, snapshot: Snapshot) -> None:
        if snapshot.began < self.counts_from:
            return

        self._unreadable = snapshot.unreadable
        # A session that has ended does not run, whatever a list shows.
        if not self.has_ended and (self._doubts(snapshot) or self._may_be_unreadable(snapshot)):
            return

        if not self._absences:
            self._first_absence = snapshot.began
        self._absences += 1
        self._last_absence = snapshot.began

    def _doubts(self, snapshot: Snapshot) -> bool:
        """Return whether a list is empty for too short a time to be believed."""
        if snapshot.empty_for is None:
            return False

        return not self.is_deleted or snapshot.empty_for < _EMPTY_ENOUGH

    def _may_be_unreadable(self, snapshot: Snapshot) -> bool:
        """Return whether it may be one of the elements that cannot be identified."""
        if snapshot.unreadable <= self._unreadable_when_listed:
            return False

        if self._doubtful_since is None:
            self._doubtful_since = snapshot.began
        return snapshot.began < self._doubtful_since + self.longest_doubt

    @property
    def is_listed(self) -> bool:
        """Whether it was in the last list."""
        return self._was_in_last

    def restart(self) -> None:
        """Ignore the lists so far, because only later ones can prove that it is gone."""
        self._absences = 0

    @property
    def has_ended(self) -> bool:
        """Whether it was listed last in a status in which it does not run any more."""
        status = self.status
        return status is not None and (status.is_terminal or status == SessionStatus.TERMINATING)

    @property
    def is_known(self) -> bool:
        """Whether it was listed, or launched by this client."""
        return self.status is not None or self.history.get(self.key) is not None

    @property
    def counts_from(self) -> float:
        """The time from which on lists without it count."""
        known = self.history.get(self.key)
        if known is None or (self.is_deleted and self.status is not None):
            return -math.inf

        # A list that lags may be from before its create.
        return known.created + self.history.settle

    @property
    def proof_due(self) -> float | None:
        """The time from which on one more list without it proves that it is gone.

        None if it was in the last list, or may appear in one for the first time.
        """
        if not self._absences:
            return None

        interval = self.history.proof_interval
        if self.needs_longer_proof:
            interval = max(interval, min(_PROOF_INTERVAL_IF_LAGGING, self.history.settle))
        return self._first_absence + (0.0 if self.has_ended else interval)

    @property
    def is_gone(self) -> bool:
        """Whether the lists prove that it is gone."""
        due = self.proof_due
        needed = 1 if self.has_ended else 2
        return due is not None and self._last_absence >= due and self._absences >= needed

    def to_failure(self, snapshot: Snapshot) -> Failure:
        """Return the failure of a session that is gone, as the list *snapshot* proves."""
        if self.status is not None:
            message = f"it is no longer listed; it was {self.status} when it was listed last"
        elif self.is_known:
            message = f"it was never listed, for {self.history.settle:g} seconds after its create"
        else:
            message = explain_unknown(self.key, index_names(snapshot))
        if self._unreadable > self._unreadable_when_listed:
            message += f" (it may be one of {self._unreadable} unreadable elements of the list)"
        kind = FailureKind.VANISHED if self.is_known else FailureKind.NOT_FOUND
        return Failure(self.key, kind, message, sent=True)


def index_names(snapshot: Snapshot) -> dict[str, list[str]]:
    """Return the ids of sessions by their names, with and without the token of a launch.

    Names that are also the id of a session are left out.
    """
    ids: dict[str, list[str]] = {}
    for key, info in snapshot.sessions.items():
        for name in {info.name, _TOKEN.sub("", info.name)}:
            ids.setdefault(name, []).append(key)
    return {name: keys for name, keys in ids.items() if name not in snapshot.sessions}


def explain_unknown(key: str, names: Mapping[str, Sequence[str]]) -> str:
    """Return the message of a failure for an id that the server does not know."""
    message = "the server lists no session with this id"
    named = names.get(key.lower())
    return f"{message}; it is the name of session {', '.join(named)}" if named else message


def is_started(info: SessionInfo) -> bool:
    """Return whether a session has been started, by its status."""
    return info.status not in {SessionStatus.PENDING, SessionStatus.UNKNOWN}
