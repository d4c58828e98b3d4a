"""What becomes of one exchange on the wire when something befalls it: bytes in, steps out.

Pure. The steps are taken by a `FaultProxy`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import TypeAlias

from attrs import define, field, frozen

from kaleden._wire import Response
from kaleden.testing import _canned_responses as replies
from kaleden.testing._faults import Fault, FaultKind, FaultSchedule
from kaleden.testing._requests import kind_of

_REQUEST_LINE = re.compile(rb"([A-Z]+) \S*?/v\d[\d.]*/(\S+) HTTP/1\.")
_LENGTH = re.compile(rb"(?i)(?<=\r\n)content-length:[ \t]*(\d+)")
_NOISE = 16
_MAX_HEAD = 65536


class Act(Enum):
    """A step that is not bytes."""

    RESET = auto()
    """Reset both connections."""
    CLOSE = auto()
    """Tell the client that nothing more comes, and part."""
    PART = auto()
    """Let neither hear the other any more."""


@frozen
class Pause:
    """Wait so many seconds."""

    seconds: float


@frozen
class Say:
    """Tell the client this, in the server's place."""

    words: bytes


Step: TypeAlias = bytes | Pause | Say | Act
"""Bytes go to whom they were meant for."""


def wire_kind(chunk: bytes) -> str:
    """Name the kind of request that begins so; "other" for what is none of HTTP/1."""
    line = _REQUEST_LINE.match(chunk)
    if line is None:
        return "other"
    return kind_of(line[1].decode("latin-1"), line[2].decode("latin-1"))


@define(eq=False)
class Exchange:
    """What a client says until the server has answered, and the answer.

    Args:
        troubles: what befalls it.
        fate: where chance comes from.
        done: counts what has come to pass.
    """

    troubles: Mapping[FaultKind, Fault]
    fate: FaultSchedule
    done: Counter[FaultKind]
    asked: int = field(init=False, default=0)
    answered: int = field(init=False, default=0)
    # Of the reply: what came of it, how long it is, and where it is to be cut off.
    _said: bytearray = field(init=False, factory=bytearray)
    _whole: int | None = field(init=False, default=None)
    _end: int | None = field(init=False, default=None)
    _happened: set[FaultKind] = field(init=False, factory=set[FaultKind])

    def ask(self, chunk: bytes) -> list[Step]:
        """Let a part of the request pass."""
        steps: list[Step] = []
        delay = self.troubles.get(FaultKind.DELAY)
        if delay is not None and self.asked == 0:
            self._note(FaultKind.DELAY)
            steps.append(Pause(self.fate.delay(delay)))
        steps += self._pass(_OF_REQUESTS, chunk)
        self.asked += len(chunk)
        return steps

    def answer(self, chunk: bytes) -> list[Step]:
        """Let a part of the reply pass."""
        if not self.troubles:
            return [chunk]
        self._said += chunk
        if self._whole is None and self.answered < _MAX_HEAD:
            self._whole = _length(self._said)
        steps = self._pass(_OF_REPLIES, chunk)
        self.answered += len(chunk)
        return steps

    def _pass(self, befall: _Befall, chunk: bytes) -> list[Step]:
        for trouble, make in befall.items():
            fault = self.troubles.get(trouble)
            steps = None if fault is None else make(self, fault, chunk)
            if steps is not None:
                self._note(trouble)
                return steps
        return [chunk]

    def _note(self, trouble: FaultKind) -> None:
        if trouble not in self._happened:
            self._happened.add(trouble)
            self.done[trouble] += 1

    def reset_before(self, fault: Fault, chunk: bytes) -> list[Step] | None:
        """Break the connection in the request."""
        return _cut(chunk, fault.size - self.asked, Act.RESET)

    def reset_after(self, fault: Fault, chunk: bytes) -> list[Step] | None:
        """Break the connection in the reply."""
        return _cut(chunk, fault.size - self.answered, Act.RESET)

    def halve(self, fault: Fault, chunk: bytes) -> list[Step] | None:
        """End the connection in the reply."""
        if self._end is None:
            self._end = fault.size or self._half(chunk)
        return _cut(chunk, self._end - self.answered, Act.CLOSE)

    def _half(self, chunk: bytes) -> int:
        """Where half of the body has come; or of what came first, if that is not known."""
        if self._whole is None:
            return len(chunk) // 2
        head = self._said.index(b"\r\n\r\n") + 4
        return head + (self._whole - head) // 2

    def lengthen(self, fault: Fault, chunk: bytes) -> list[Step] | None:
        """Say a length that is too large, and end where the reply ends."""
        if self._end is not None:
            return _cut(chunk, self._end - self.answered, Act.CLOSE)
        length = _LENGTH.search(chunk)
        if self.answered or length is None or self._whole is None:
            return None
        self._end = self._whole
        number = b"%d" % (int(length[1]) + (fault.size or 1))
        longer = chunk[: length.start(1)] + number + chunk[length.end(1) :]
        return _cut(longer, self._end + len(longer) - len(chunk), Act.CLOSE) or [longer]

    def garble(self, fault: Fault, chunk: bytes) -> list[Step] | None:
        """Put bytes that mean nothing in the place of some."""
        start = max(fault.size - self.answered, 0)
        stop = min(fault.size + _NOISE - self.answered, len(chunk))
        if stop <= start:
            return None
        return [chunk[:start] + self.fate.noise(stop - start) + chunk[stop:]]

    def repeat(self, _fault: Fault, chunk: bytes) -> list[Step] | None:
        """Let the reply come once more when it is whole."""
        if self._whole is None or len(self._said) < self._whole:
            return None
        return [chunk, bytes(self._said)]


def _length(reply: bytearray) -> int | None:
    """How long a reply of HTTP/1 is, head and body; None if it does not say so, or not yet."""
    head, blank, _ = reply.partition(b"\r\n\r\n")
    length = _LENGTH.search(head + b"\r\n") if blank else None
    return None if length is None else len(head) + len(blank) + int(length[1])


def _cut(chunk: bytes, left: int, act: Act) -> list[Step] | None:
    """Cut off what is beyond what is left; None if nothing is."""
    if len(chunk) < left:
        return None
    return [chunk[:left], act] if left > 0 else [act]


def _say(reply: Response) -> list[Step]:
    headers = {**reply.headers, "content-length": len(reply.body), "connection": "close"}
    lines = [f"HTTP/1.1 {reply.status} ", *(f"{name}: {value}" for name, value in headers.items())]
    head = "\r\n".join([*lines, "", ""])
    return [Say(head.encode("latin-1") + reply.body), Act.CLOSE]


def _dribble(fault: Fault, chunk: bytes) -> list[Step]:
    steps: list[Step] = []
    step = max(fault.size, 1)
    for start in range(0, len(chunk), step):
        steps += [chunk[start : start + step], Pause(fault.seconds)]
    return steps


_Befall: TypeAlias = Mapping[FaultKind, Callable[[Exchange, Fault, bytes], list[Step] | None]]

# In the order of time: what happens first hides what would happen later.
_OF_REQUESTS: _Befall = {
    FaultKind.STALL: lambda _exchange, _fault, _chunk: [Act.PART],
    FaultKind.RESET_BEFORE: Exchange.reset_before,
    FaultKind.BUSY: lambda _exchange, fault, _chunk: _say(replies.busy(fault)),
    FaultKind.ERROR_BEFORE: lambda _exchange, _fault, _chunk: _say(replies.error()),
}
_OF_REPLIES: _Befall = {
    FaultKind.STALL_AFTER: lambda _exchange, _fault, _chunk: [Act.PART],
    FaultKind.RESET_AFTER: Exchange.reset_after,
    FaultKind.HALF_BODY: Exchange.halve,
    FaultKind.WRONG_LENGTH: Exchange.lengthen,
    FaultKind.ERROR_AFTER: lambda _exchange, _fault, _chunk: _say(replies.error()),
    FaultKind.GARBAGE: Exchange.garble,
    FaultKind.HTML: lambda _exchange, _fault, _chunk: _say(replies.page()),
    FaultKind.SLOW: lambda _exchange, fault, chunk: _dribble(fault, chunk),
    FaultKind.DUPLICATE: Exchange.repeat,
}
