"""What goes wrong, when, and how often: said beforehand, and the same each time.

One vocabulary for both that carry it out: `MemoryTransport`, without sockets, and `FaultProxy`, on
real connections.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from typing import NoReturn, final

from attrs import define, field, frozen, validators

from kaleden.testing._requests import REQUEST_KINDS


class FaultKind(StrEnum):
    """What can go wrong with a request; "before" and "after" speak of what it was to do.

    Attributes:
        DELAY: "delay". It takes `Fault.seconds` more, and up to `Fault.jitter` on top.
        REFUSED: "refused". No connection: nothing was sent.
        BUSY: "busy". `Fault.status` (503, or 429) and a Retry-After of `Fault.seconds`; nothing was
            done.
        RESET_BEFORE: "reset-before". The connection breaks, and nothing was done; on the wire,
            after `Fault.size` bytes of it.
        RESET_AFTER: "reset-after". The connection breaks, and it was done: the reply is lost; on
            the wire, all of it but `Fault.size` bytes.
        ERROR_BEFORE: "error-before". A 500, and nothing was done.
        ERROR_AFTER: "error-after". A 500, and it was done all the same.
        STALL: "stall". Nothing happens any more.
        STALL_AFTER: "stall-after". It was done, and nobody says so.
        HALF_BODY: "half-body". It was done, and the connection ends in the middle of the reply; on
            the wire, after `Fault.size` bytes of it.
        WRONG_LENGTH: "wrong-length". It was done, and the reply is shorter than it says it is.
        SLOW: "slow". It was done, and the reply comes `Fault.size` bytes (1, if 0) at a time, with
            `Fault.seconds` between them.
        DUPLICATE: "duplicate". It was done, and the reply comes twice. On the wire only.
        GARBAGE: "garbage". It was done, and the reply is a 200 with bytes that mean nothing; on the
            wire, such bytes stand in the place of those from the `Fault.size`-th on.
        HTML: "html". It was done, and the reply is a 200 with a web page.
        LIE: "lie". An empty 200, and nothing was done: a delete that only says so. In memory only.
        LAG: "lag". What is read is the state of `Fault.seconds` ago; has no effect on what is
            written. In memory only.
    """

    DELAY = "delay"
    REFUSED = "refused"
    BUSY = "busy"
    RESET_BEFORE = "reset-before"
    RESET_AFTER = "reset-after"
    ERROR_BEFORE = "error-before"
    ERROR_AFTER = "error-after"
    STALL = "stall"
    STALL_AFTER = "stall-after"
    HALF_BODY = "half-body"
    WRONG_LENGTH = "wrong-length"
    SLOW = "slow"
    DUPLICATE = "duplicate"
    GARBAGE = "garbage"
    HTML = "html"
    LIE = "lie"
    LAG = "lag"

    @classmethod
    def _missing_(cls, value: object) -> NoReturn:
        raise ValueError(f"no trouble: {value!r}; there are {', '.join(cls)}")


def _ordinals(nth: int | Iterable[int] | None) -> frozenset[int] | None:
    if nth is None:
        return None
    ordinals = frozenset({nth} if isinstance(nth, int) else nth)
    if any(ordinal < 1 for ordinal in ordinals):
        raise ValueError(f"nth counts requests from 1, and is {nth!r}: it would befall none")
    return ordinals


def _check_kind(_fault: object, _attribute: object, kind: str | None) -> None:
    if kind is not None and kind not in REQUEST_KINDS:
        raise ValueError(f"no kind of request: {kind!r}; there are {', '.join(REQUEST_KINDS)}")


@final
@frozen
class Fault:
    """One rule of a `FaultPlan`.

    Args:
        trouble: what goes wrong.
        on: the kind of request that it befalls, one of `REQUEST_KINDS`; None for any.
        nth: which of those requests, counted from 1, one number or several; None for all.
        probability: how likely it befalls each of them, from 0 to 1.
        seconds: how long, for `FaultKind.DELAY`, `FaultKind.BUSY`, `FaultKind.SLOW` and
            `FaultKind.LAG`.
        jitter: seconds that a delay may take on top.
        status: the HTTP status, for `FaultKind.BUSY`.
        size: how many bytes, where the trouble speaks of them.

    Raises:
        ValueError: one of them cannot be.
    """

    trouble: FaultKind = field(converter=FaultKind)
    on: str | None = field(default=None, validator=_check_kind)
    nth: frozenset[int] | None = field(default=None, converter=_ordinals, kw_only=True)
    probability: float = field(
        default=1.0, validator=[validators.ge(0), validators.le(1)], kw_only=True
    )
    seconds: float = field(default=0.0, validator=validators.ge(0), kw_only=True)
    jitter: float = field(default=0.0, validator=validators.ge(0), kw_only=True)
    status: int = field(default=503, kw_only=True)
    size: int = field(default=0, validator=validators.ge(0), kw_only=True)

    def concerns(self, kind: str, ordinal: int) -> bool:
        """Tell whether it may befall the request of this kind with this number."""
        return self.on in {None, kind} and (self.nth is None or ordinal in self.nth)


@final
@frozen
class FaultPlan:
    """What goes wrong on a `MemoryTransport` or a `FaultProxy`.

    Of several faults that befall one request, what happens first hides what would happen later, and
    of the same trouble the first in the plan counts.

    Args:
        faults: the rules.
        seed: of all chance in them.
    """

    faults: tuple[Fault, ...] = field(default=(), converter=tuple[Fault, ...])
    seed: int = 0

    def without(self, *troubles: FaultKind) -> FaultPlan:
        """Give this plan, after making sure that there are none of these troubles in it.

        Raises:
            ValueError: there are.
        """
        for fault in self.faults:
            if fault.trouble in troubles:
                raise ValueError(f"{fault.trouble!r} cannot be done here: see `FaultKind`")
        return self

    @property
    def lag(self) -> float:
        """How far back it lets requests look, in seconds."""
        lags = [fault.seconds for fault in self.faults if fault.trouble is FaultKind.LAG]
        return max(lags, default=0.0)


@final
@define(eq=False)
class FaultSchedule:
    """A plan as it comes true, request by request.

    Args:
        plan: the plan.
    """

    plan: FaultPlan
    _seen: Counter[str | None] = field(init=False, factory=Counter[str | None])
    _random: random.Random = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._random = random.Random(self.plan.seed)  # noqa: S311 - nothing is secret here

    def draw(self, kind: str) -> dict[FaultKind, Fault]:
        """Decide what befalls the next request, which is of this kind."""
        self._seen.update((kind, None))
        troubles: dict[FaultKind, Fault] = {}
        for fault in self.plan.faults:
            if fault.concerns(kind, self._seen[fault.on]) and self._strikes(fault):
                troubles.setdefault(fault.trouble, fault)
        return troubles

    def _strikes(self, fault: Fault) -> bool:
        return fault.probability == 1 or self._random.random() < fault.probability

    def noise(self, size: int) -> bytes:
        """Draw bytes that no protocol of text has."""
        return bytes(byte | 0x80 for byte in self._random.randbytes(size))

    def delay(self, fault: Fault | None) -> float:
        """Draw the seconds of a delay; 0 without one."""
        if fault is None:
            return 0.0
        return fault.seconds + self._random.uniform(0, fault.jitter)
