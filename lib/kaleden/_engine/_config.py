"""Decisions, without a single await: how many at once, for how long, and what is tried again."""

from __future__ import annotations

import math
import random
from typing import Any, Final, final

from attrs import Attribute, field, frozen

from kaleden._errors import ConfigurationError, FailureKind

# A Retry-After is obeyed up to here: a wait that sleeps for hours tells its caller nothing.
MAX_PAUSE: Final = 300.0  # seconds

# Nothing of the request was done, or nobody knows and doing it twice is doing it once.
TRANSIENT: Final = frozenset(
    {
        FailureKind.CONNECT_FAILED,
        FailureKind.CONNECTION_LOST,
        FailureKind.TIMED_OUT,
        FailureKind.UNAVAILABLE,
    }
)

# What a proxy says of a server that it cannot reach. A 500 is the server's own, and tends to stay.
_GATEWAY_ERRORS: Final = frozenset({502, 504})


def _seconds(_: object, attribute: Attribute[Any], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        msg = f"{attribute.name} is a number of seconds above 0, not {value!r}"
        raise ConfigurationError(msg)


def _count(_: object, attribute: Attribute[Any], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        msg = f"{attribute.name} is a whole number of requests, 1 or more, not {value!r}"
        raise ConfigurationError(msg)


def _bytes(_: object, attribute: Attribute[Any], value: object) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        msg = f"{attribute.name} is a whole number of bytes, 1 or more, not {value!r}"
        raise ConfigurationError(msg)


def _amount(_: object, attribute: Attribute[Any], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        msg = f"{attribute.name} is a number of repetitions, 0 or more, not {value!r}"
        raise ConfigurationError(msg)


@final
@frozen(kw_only=True)
class Limits:
    """What one client may ask of the server.

    Attributes:
        timeout: seconds for one attempt of anything but a create.
        create_timeout: seconds for one attempt of a create; a busy server takes 60 to 90 for it.
        concurrency: requests in flight at once.
        create_concurrency: creates in flight at once, within `concurrency`.
        settle: seconds in which a create whose answer was lost may still show up in a list.
        create_grace: seconds that a create whose caller was cancelled has for its answer.
        adaptive: whether fewer requests than `concurrency` are in flight while the server is
            overloaded.
        max_body: bytes of one reply, at most; None for what a transport bears by itself.
    """

    timeout: float = field(default=30.0, validator=_seconds)
    create_timeout: float = field(default=180.0, validator=_seconds)
    concurrency: int = field(default=32, validator=_count)
    create_concurrency: int = field(default=8, validator=_count)
    settle: float = field(default=10.0, validator=_seconds)
    create_grace: float = field(default=10.0, validator=_seconds)
    adaptive: bool = False
    max_body: int | None = field(default=None, validator=_bytes)


@final
@frozen(kw_only=True)
class RetryPolicy:
    """How often, and when, a client tries again what failed and may pass.

    Tried again are requests that do no harm twice (reads, deletes, renewals), after a connection
    that failed or broke, a reply that did not come in time, and HTTP 429, 502, 503 and 504. A
    create is tried again only if nothing of it was sent. Nothing else is: 400, 401, 403, 404 and
    500 say the same a second time.

    Before each repetition a client waits a random time, of which the longest doubles each time
    ("full jitter"), so that many clients do not come back in step; and at least as long as the
    server asked for with ``Retry-After``. It never waits past the caller's deadline: if that comes
    first, the failure is told at once.

    All repetitions of one client are paid from one budget. It begins with *reserve*, each request
    adds *share* of a repetition, and it never holds more than *reserve*. So a server that fails for
    all gets at most ``(1 + share) * n + reserve`` attempts for n requests, however many of them are
    under way.

    Args:
        attempts: how often one request is sent at most, the first time included.
        base: the longest back-off before the second attempt, in seconds.
        cap: the longest back-off before any attempt, in seconds.
        total: seconds after the start of the first attempt in which another may begin.
        reserve: how many repetitions the budget holds at most, and at first.
        share: what part of a repetition each request adds to the budget.
        seed: of the random times, to have the same again; None for others each time.

    Raises:
        ConfigurationError: an argument cannot be used.
    """

    attempts: int = field(default=4, validator=_count)
    base: float = field(default=0.5, validator=_seconds)
    cap: float = field(default=15.0, validator=_seconds)
    total: float = field(default=120.0, validator=_seconds)
    reserve: float = field(default=10.0, validator=_amount)
    share: float = field(default=0.2, validator=_amount)
    seed: int | None = None

    def draw_backoff(self, attempts: int, chance: random.Random) -> float:
        """Draw the seconds to wait after so many attempts."""
        # Beyond this exponent any base has met its cap, and floats have an end.
        longest = min(self.cap, self.base * 2.0 ** min(attempts - 1, 64))
        return chance.uniform(0.0, longest)


RETRY: Final = RetryPolicy()
"""How a client tries again by default."""


def is_transient(kind: FailureKind, status: int | None) -> bool:
    """Whether a request that failed so may succeed if it is sent again."""
    return kind in TRANSIENT or status in _GATEWAY_ERRORS


def is_overload(kind: FailureKind) -> bool:
    """Whether such a failure says that the server has too much to do."""
    return kind is FailureKind.UNAVAILABLE or kind is FailureKind.TIMED_OUT
