"""When to look again, and how often a failure is borne: decisions without an await."""

from __future__ import annotations

import random
from typing import Final, final

from kaleden._engine._config import LONGEST_PAUSE
from kaleden._errors import FailureKind

FIRST: Final = 1.0  # seconds
MOST: Final = 15.0  # seconds
GROWTH: Final = 1.5
JITTER: Final = 0.2

# With the growing intervals this outlasts a minute and a half without a server.
BORNE: Final = 10

_PASSING: Final = frozenset(
    {
        FailureKind.CONNECT_FAILED,
        FailureKind.CONNECTION_LOST,
        FailureKind.PROTOCOL,
        FailureKind.SERVER_ERROR,
        FailureKind.TIMED_OUT,
        FailureKind.UNAVAILABLE,
    }
)


@final
class Pace:
    """Looks often after a change, and ever less often while nothing changes.

    The interval is one second after a change and grows by half with each look that shows none, up
    to 15 seconds; each is up to a fifth shorter or longer, so that many clients do not ask in step.

    Args:
        chance: where the jitter comes from.

    Attributes:
        due: the time of the next look, on the clock that the caller tells *now* from.
    """

    __slots__ = ("_chance", "_interval", "due")

    def __init__(self, chance: random.Random | None = None) -> None:
        self._chance = chance or random.Random()  # noqa: S311  # spreads load, keeps no secret
        self.restart(0.0)

    def restart(self, now: float) -> None:
        """Make a look due at once, and the ones after it frequent."""
        self._interval = FIRST / GROWTH
        self.due: float = now

    def looked(self, now: float, *, changed: bool) -> None:
        """Set the time of the next look, after one that ended at *now*."""
        self._interval = FIRST if changed else min(self._interval * GROWTH, MOST)
        self.due = now + self._interval * self._chance.uniform(1 - JITTER, 1 + JITTER)

    def pause(self, now: float, seconds: float | None) -> None:
        """Put the next look off as the server asked: by *seconds*, within reason."""
        self.due = max(self.due, now + min(seconds or 0.0, LONGEST_PAUSE))


@final
class Patience:
    """Bears some failures in a row, if they are of a kind that passes."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Start to count anew, after a success."""
        self._left = BORNE

    def bears(self, kind: FailureKind) -> bool:
        """Count one more failure, and tell whether to try again after it."""
        self._left -= 1
        return kind in _PASSING and self._left >= 0
