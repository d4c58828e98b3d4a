"""Fault plans: which faults to inject, into which requests, and how often.

A plan gives the same faults on each run. `MemoryTransport` injects them without sockets, and
`FaultProxy` injects them into real connections.
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
    """The kinds of fault that can be injected into a request.

    "Before" and "after" refer to the effect of the request on the server, such as creating a
    session. `Fault.size` has an effect on a `FaultProxy` only, unless stated otherwise.

    Attributes:
        DELAY: "delay". The request takes `Fault.seconds` longer, plus up to `Fault.jitter` seconds.
        REFUSED: "refused". The connection is refused. Nothing is sent.
        BUSY: "busy". The response has `Fault.status` (503, or 429) and a Retry-After header of
            `Fault.seconds`. The request has no effect.
        RESET_BEFORE: "reset-before". The connection is reset after the first `Fault.size` bytes of
            the request. The request has no effect.
        RESET_AFTER: "reset-after". The request takes effect, and the response is lost: the
            connection is reset after the first `Fault.size` bytes of the response.
        ERROR_BEFORE: "error-before". The response is a 500. The request has no effect.
        ERROR_AFTER: "error-after". The response is a 500, although the request takes effect.
        STALL: "stall". The request has no effect and gets no response. The connection stays open.
        STALL_AFTER: "stall-after". The request takes effect, but gets no response. The connection
            stays open.
        HALF_BODY: "half-body". The request takes effect, and the connection ends after the first
            `Fault.size` bytes of the response, or in the middle of its body if that is 0.
        WRONG_LENGTH: "wrong-length". The request takes effect, and the body of the response is
            shorter than its Content-Length: by `Fault.size` bytes, or by 1 if that is 0.
        SLOW: "slow". The request takes effect, and the response arrives in pieces of `Fault.size`
            bytes, or of 1 if that is 0, with `Fault.seconds` between them. On a `MemoryTransport`,
            the size determines the duration.
        DUPLICATE: "duplicate". The request takes effect, and the response is sent twice. Only on a
            `FaultProxy`.
        GARBAGE: "garbage". The request takes effect, and the response is a 200 with meaningless
            bytes. A `FaultProxy` replaces bytes of the response, from offset `Fault.size` on.
        HTML: "html". The request takes effect, and the response is a 200 with a web page.
        LIE: "lie". The response is an empty 200, but the request has no effect: for example, a
            delete that deletes nothing. Only on a `MemoryTransport`.
        LAG: "lag". A read returns the state of `Fault.seconds` ago. A write is not changed. Only on
            a `MemoryTransport`.
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
        raise ValueError(f"no kind of fault: {value!r}; there are {', '.join(cls)}")


def _parse_nth(nth: int | Iterable[int] | None) -> frozenset[int] | None:
    if nth is None:
        return None
    ordinals = frozenset({nth} if isinstance(nth, int) else nth)
    if any(ordinal < 1 for ordinal in ordinals):
        raise ValueError(f"nth counts requests from 1, and is {nth!r}: it would match no request")
    return ordinals


def _check_kind(_fault: object, _attribute: object, kind: str | None) -> None:
    if kind is not None and kind not in REQUEST_KINDS:
        raise ValueError(f"no kind of request: {kind!r}; there are {', '.join(REQUEST_KINDS)}")


@final
@frozen
class Fault:
    """One rule of a `FaultPlan`: a kind of fault, and the requests to inject it into.

    Args:
        trouble: the kind of fault, a `FaultKind` or its value, such as "reset-after".
        on: the kind of request to inject into, one of `REQUEST_KINDS`; None for any kind.
        nth: the number of the request, or several numbers, counted from 1 among the requests of
            this kind; None for all of them.
        probability: the probability of the fault for each of these requests, from 0 to 1.
        seconds: the duration in seconds, for `FaultKind.DELAY`, `FaultKind.BUSY`, `FaultKind.SLOW`
            and `FaultKind.LAG`.
        jitter: the largest random addition to a delay, in seconds.
        status: the HTTP status, for `FaultKind.BUSY`.
        size: a number of bytes. See `FaultKind` for its meaning.

    Raises:
        ValueError: an argument is out of range, or names an unknown kind.
    """

    trouble: FaultKind = field(converter=FaultKind)
    on: str | None = field(default=None, validator=_check_kind)
    nth: frozenset[int] | None = field(default=None, converter=_parse_nth, kw_only=True)
    probability: float = field(
        default=1.0, validator=[validators.ge(0), validators.le(1)], kw_only=True
    )
    seconds: float = field(default=0.0, validator=validators.ge(0), kw_only=True)
    jitter: float = field(default=0.0, validator=validators.ge(0), kw_only=True)
    status: int = field(default=503, kw_only=True)
    size: int = field(default=0, validator=validators.ge(0), kw_only=True)

    def concerns(self, kind: str, ordinal: int) -> bool:
        """Return whether the rule selects the request of this kind with this number."""
        return self.on in {None, kind} and (self.nth is None or ordinal in self.nth)


@final
@frozen
class FaultPlan:
    """The faults to inject on a `MemoryTransport` or a `FaultProxy`.

    If several rules select the same request, the fault that happens first hides those that would
    happen later. Of several rules with the same kind of fault, the first in the plan applies.

    Args:
        faults: the rules.
        seed: the seed for all random choices.
    """

    faults: tuple[Fault, ...] = field(default=(), converter=tuple[Fault, ...])
    seed: int = 0

    def without(self, *kinds: FaultKind) -> FaultPlan:
        """Return this plan, after checking that it has none of these kinds of fault.

        Raises:
            ValueError: the plan has a fault of these kinds.
        """
        for fault in self.faults:
            if fault.trouble in kinds:
                raise ValueError(f"{fault.trouble!r} cannot be done here: see `FaultKind`")
        return self

    @property
    def lag(self) -> float:
        """The longest lag of a read, in seconds."""
        lags = [fault.seconds for fault in self.faults if fault.trouble is FaultKind.LAG]
        return max(lags, default=0.0)


@final
@define(eq=False)
class FaultSchedule:
    """The state of a plan in use: it counts requests and draws the faults of each."""

    plan: FaultPlan
    _seen: Counter[str | None] = field(init=False, factory=Counter[str | None])
    _random: random.Random = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._random = random.Random(self.plan.seed)  # noqa: S311 - nothing is secret here

    def draw(self, kind: str) -> dict[FaultKind, Fault]:
        """Draw the faults of the next request, which is of this kind."""
        self._seen.update((kind, None))
        drawn: dict[FaultKind, Fault] = {}
        for fault in self.plan.faults:
            if fault.concerns(kind, self._seen[fault.on]) and self._occurs(fault):
                drawn.setdefault(fault.trouble, fault)
        return drawn

    def _occurs(self, fault: Fault) -> bool:
        return fault.probability == 1 or self._random.random() < fault.probability

    def draw_noise(self, size: int) -> bytes:
        """Draw bytes that no text protocol uses."""
        return bytes(byte | 0x80 for byte in self._random.randbytes(size))

    def draw_delay(self, fault: Fault | None) -> float:
        """Draw the length of a delay in seconds; 0 if *fault* is None."""
        if fault is None:
            return 0.0
        return fault.seconds + self._random.uniform(0, fault.jitter)
