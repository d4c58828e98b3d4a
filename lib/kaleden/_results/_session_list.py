"""A list of sessions that is a table too."""

from __future__ import annotations

from collections import Counter
from typing import Any, final

from kaleden._results._tables import (
    Grid,
    Tabular,
    Tone,
    View,
    build_session_grid,
    build_view,
    find_status_tone,
    select_rows,
)
from kaleden._wire import SessionInfo


@final
class SessionList(list[SessionInfo], Tabular):
    """A list of `SessionInfo`, which notebooks and ``rich.print`` show as a table.

    It is a plain list in all else; parts and copies of it are plain lists: give them to
    ``SessionList(...)`` for a table of those.
    """

    __slots__ = ()

    def _grid(self) -> Grid:
        return build_session_grid(self)

    def _view(self, most: int) -> View:
        chosen = select_rows(self, len(self), _has_failed, most)
        return build_view(build_session_grid(chosen), self.summary(), len(self))

    def summary(self) -> str:
        """Tell in a few words how many there are, and in which states."""
        statuses = Counter(str(info.status) for info in self)
        told = ", ".join(f"{count} {status}" for status, count in statuses.most_common())
        return f"{len(self)} session{'s' if len(self) != 1 else ''}" + (f": {told}" if told else "")

    def __reduce__(self) -> tuple[Any, ...]:
        return SessionList, (list(self),)


def _has_failed(info: SessionInfo) -> bool:
    return find_status_tone(info.status) is Tone.BAD
