"""When things become due, whose dates may change, and which may be struck off before."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import final

from attrs import define, field

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
