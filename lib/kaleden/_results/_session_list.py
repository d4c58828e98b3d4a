"""A list of sessions that can be shown and converted as a table."""

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
    """A list of `SessionInfo` that notebooks and ``rich.print`` show as a table.

    Otherwise it behaves as a plain list. Slices and copies of it are plain lists; pass them to
    ``SessionList(...)`` to get a table of them.
    """

    __slots__ = ()

    def _build_grid(self) -> Grid:
        return build_session_grid(self)

    def _build_view(self, limit: int) -> View:
        chosen = select_rows(self, lambda info: find_status_tone(info.status) is Tone.BAD, limit)
        return build_view(build_session_grid(chosen), self.summary(), len(self))

    def summary(self) -> str:
        """Return a short text with the number of sessions, in total and by status."""
        statuses = Counter(str(info.status) for info in self)
        counts = ", ".join(f"{count} {status}" for status, count in statuses.most_common())
        total = f"{len(self)} session{'s' if len(self) != 1 else ''}"
        return f"{total}: {counts}" if counts else total

    def __reduce__(self) -> tuple[Any, ...]:
        return SessionList, (list(self),)
