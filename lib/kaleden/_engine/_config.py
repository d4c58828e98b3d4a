"""The limits and the retry policy of a client: data and decisions, nothing that waits."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, Final, final

from attrs import Attribute, field, frozen

from kaleden._errors import ConfigurationError, FailureKind, KaledenError

MAX_PAUSE: Final = 300.0
"""The longest Retry-After that is obeyed, in seconds; callers must notice a longer outage."""

TRANSIENT: Final = frozenset(
    {
        FailureKind.CONNECT_FAILED,
        FailureKind.CONNECTION_LOST,
        FailureKind.TIMED_OUT,
        FailureKind.UNAVAILABLE,
    }
)
"""Failures after which an idempotent request may succeed if it is sent again."""

# A proxy sends these when it cannot reach the server. A 500 is from the server, and is permanent.
TRANSIENT_STATUSES: Final = frozenset({502, 504})


def check_number(
    name: str,
    value: object,
    unit: str,
    *,
    whole: bool = False,
    least: float | None = None,
    finite: bool = True,
    error: Callable[[str], KaledenError] = ConfigurationError,
) -> None:
    """Check that an argument is a number.

    Args:
        name: the name of the argument.
        value: its value.
        unit: the unit, for the message, such as ``"seconds"``.
        whole: whether it must be an integer.
        least: the least value; by default any above 0.
        finite: whether infinity is refused.
        error: the exception to raise.

    Raises:
        KaledenError: it is not; of the type *error*.
    """
    if not isinstance(value, bool) and isinstance(value, Integral if whole else Real):
        number: Any = value
        is_enough = number > 0 if least is None else number >= least
        if is_enough and not (finite and number == math.inf):
            return

    kind = "a whole number" if whole else "a number"
    bound = " above 0" if least is None else f", {least:g} or more"
    raise error(f"{name} is {kind} of {unit}{bound}, not {value!r}")


def _number(unit: str, **bounds: Any) -> Callable[[object, Attribute[Any], object], None]:
    """Make an attrs validator that calls `check_number`."""

    def check(_: object, attribute: Attribute[Any], value: object) -> None:
        check_number(attribute.name, value, unit, **bounds)

    return check


def _optional_bytes(_: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None:
        check_number(attribute.name, value, "bytes", whole=True, least=1)


def _optional_seconds(_: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None:
        check_number(attribute.name, value, "seconds", least=0.0)


_seconds = _number("seconds")
_requests = _number("requests", whole=True, least=1)
_retries = _number("repetitions", least=0)


@final
@frozen(kw_only=True)
class Limits:
    """How much one client may ask of the server at once, and for how long it waits.

    Attributes:
        timeout: seconds for one attempt of a request that is not a create.
        create_timeout: seconds for one attempt of a create; a busy server takes 60 to 90 for it.
        concurrency: requests in flight at once.
        create_concurrency: creates in flight at once, within `concurrency`.
        settle: seconds after a create within which lists may not show its session.
        outage_timeout: seconds for which tasks that wait tolerate an outage; None for no limit.
        create_grace: seconds that a create has for its response after its caller was cancelled.
        adaptive: whether the limit is lowered while the server is overloaded.
        max_body: bytes of one response body, at most; None for the default of the transport.
    """

    timeout: float = field(default=30.0, validator=_seconds)
    create_timeout: float = field(default=180.0, validator=_seconds)
    concurrency: int = field(default=32, validator=_requests)
    create_concurrency: int = field(default=8, validator=_requests)
    settle: float = field(default=30.0, validator=_seconds)
    outage_timeout: float | None = field(default=3600.0, validator=_optional_seconds)
    create_grace: float = field(default=10.0, validator=_seconds)
    adaptive: bool = False
    max_body: int | None = field(default=None, validator=_optional_bytes)


@final
@frozen(kw_only=True)
class RetryPolicy:
    """When, and how often, a client retries a failed request.

    Idempotent requests (reads, deletes, renewals) are retried after a connection that failed or
    broke, a response that did not come in time, and HTTP 429, 502, 503 and 504. A create is retried
    only if nothing of it was sent. Nothing else is retried: a second 400, 401, 403, 404 or 500
    would be the same.

    Before each retry a client waits a random time ("full jitter"), whose upper bound doubles each
    time, so that many clients do not retry in step; and at least as long as the server asked for
    with ``Retry-After``. It never waits past the caller's deadline: if that comes first, the
    failure is returned at once.

    All retries of one client are paid from one budget. It begins with *reserve*, each request adds
    *share* of a retry, and it never holds more than *reserve*. So a server that fails all requests
    gets at most ``(1 + share) * n + reserve`` attempts for n requests, however many are in flight.

    Args:
        attempts: how often one request is sent at most, the first attempt included.
        base: the upper bound of the back-off before the second attempt, in seconds.
        cap: the upper bound of the back-off before any attempt, in seconds.
        total: seconds after the start of the first attempt within which another may begin.
        reserve: the number of retries that the budget holds at most, and at first.
        share: the part of a retry that each request adds to the budget.
        seed: the seed of the random back-offs, to repeat a run; None for a different one each time.

    Raises:
        ConfigurationError: an argument cannot be used.
    """

    attempts: int = field(default=4, validator=_requests)
    base: float = field(default=0.5, validator=_seconds)
    cap: float = field(default=15.0, validator=_seconds)
    total: float = field(default=120.0, validator=_seconds)
    reserve: float = field(default=10.0, validator=_retries)
    share: float = field(default=0.2, validator=_retries)
    seed: int | None = None

    def draw_backoff(self, attempts: int, source: random.Random) -> float:
        """Draw the seconds to wait after that many attempts."""
        # Beyond this exponent any base has reached its cap, and floats overflow at 1024.
        longest = min(self.cap, self.base * 2.0 ** min(attempts - 1, 64))
        return source.uniform(0.0, longest)


RETRY: Final = RetryPolicy()
"""The retry policy of a client by default."""


@final
class Backoff:
    """The growing intervals between two polls.

    Args:
        first: the first interval, in seconds.
        longest: the longest interval, in seconds.
        factor: how much longer each interval is than the one before.
    """

    __slots__ = ("_factor", "_first", "_longest", "_next")

    def __init__(self, first: float, longest: float, factor: float = 2.0) -> None:
        self._first = first
        self._longest = longest
        self._factor = factor
        self._next = first

    def reset(self) -> None:
        """Begin with the first interval again."""
        self._next = self._first

    def shrink(self, factor: float) -> None:
        """Make the next interval shorter, but not shorter than the first."""
        self._next = max(self._first, self._next / factor)

    def next(self) -> float:
        """Return the next interval, in seconds."""
        interval = self._next
        self._next = min(interval * self._factor, self._longest)
        return interval


def is_transient(failure_kind: FailureKind, status: int | None) -> bool:
    """Return whether an idempotent request that failed like this is worth a retry."""
    return failure_kind in TRANSIENT or status in TRANSIENT_STATUSES


def is_overload(kind: FailureKind) -> bool:
    """Return whether such a failure means that the server has too much to do."""
    return kind is FailureKind.UNAVAILABLE or kind is FailureKind.TIMED_OUT
