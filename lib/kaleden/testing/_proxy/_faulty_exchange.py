"""Faults in one exchange of a request and a response, as a function from bytes to steps.

This module does no I/O. A `FaultProxy` carries out the steps.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import TypeAlias

from attrs import define, field, frozen

from kaleden._wire import Response
from kaleden.testing import _canned_responses as canned
from kaleden.testing._faults import Fault, FaultKind, FaultSchedule
from kaleden.testing._requests import classify_target

_REQUEST_LINE = re.compile(rb"([A-Z]+) \S*?/v\d[\d.]*/(\S+) HTTP/1\.")
_LENGTH = re.compile(rb"(?i)(?<=\r\n)content-length:[ \t]*(\d+)")
_NOISE = 16
_MAX_HEAD = 65536


class Action(Enum):
    """A step that changes the connections."""

    RESET = auto()
    """Reset both connections."""
    CLOSE = auto()
    """Send the client an end of file, and detach."""
    DETACH = auto()
    """Forward nothing more between client and server."""


@frozen
class Pause:
    """A pause, in seconds."""

    seconds: float


@frozen
class SendToClient:
    """Bytes to send to the client instead of the server's response."""

    data: bytes


Step: TypeAlias = bytes | Pause | SendToClient | Action
"""One step of an exchange. Plain bytes are forwarded to their receiver."""


def classify_chunk(chunk: bytes) -> str:
    """Return the kind of the request that begins with *chunk*; "other" if it is not HTTP/1."""
    line = _REQUEST_LINE.match(chunk)
    if line is None:
        return "other"
    return classify_target(line[1].decode("latin-1"), line[2].decode("latin-1"))


@define(eq=False)
class Exchange:
    """The bytes of a client until the server responds, and the response.

    Args:
        faults: the faults of this exchange.
        schedule: the source of random numbers.
        done: counts the faults that were injected, by kind.
    """

    faults: Mapping[FaultKind, Fault]
    schedule: FaultSchedule
    done: Counter[FaultKind]
    request_bytes: int = field(init=False, default=0)
    response_bytes: int = field(init=False, default=0)
    # The response received so far, its whole length, and the offset to end it at.
    _response: bytearray = field(init=False, factory=bytearray)
    _length: int | None = field(init=False, default=None)
    _cut_at: int | None = field(init=False, default=None)
    _counted: set[FaultKind] = field(init=False, factory=set[FaultKind])

    def process_request(self, chunk: bytes) -> list[Step]:
        """Return the steps for a part of the request."""
        steps: list[Step] = []
        delay = self.faults.get(FaultKind.DELAY)
        if delay is not None and self.request_bytes == 0:
            self._count(FaultKind.DELAY)
            steps.append(Pause(self.schedule.draw_delay(delay)))
        steps += self._apply(_REQUEST_HANDLERS, chunk)
        self.request_bytes += len(chunk)
        return steps

    def process_response(self, chunk: bytes) -> list[Step]:
        """Return the steps for a part of the response."""
        if not self.faults:
            return [chunk]
        self._response += chunk
        if self._length is None and self.response_bytes < _MAX_HEAD:
            self._length = _parse_length(self._response)
        steps = self._apply(_RESPONSE_HANDLERS, chunk)
        self.response_bytes += len(chunk)
        return steps

    def _apply(self, handlers: _Handlers, chunk: bytes) -> list[Step]:
        for kind, handle in handlers.items():
            fault = self.faults.get(kind)
            steps = None if fault is None else handle(self, fault, chunk)
            if steps is not None:
                self._count(kind)
                return steps
        return [chunk]

    def _count(self, kind: FaultKind) -> None:
        if kind not in self._counted:
            self._counted.add(kind)
            self.done[kind] += 1

    def reset_in_request(self, fault: Fault, chunk: bytes) -> list[Step] | None:
        """Reset the connections after `Fault.size` bytes of the request."""
        return _cut(chunk, fault.size - self.request_bytes, Action.RESET)

    def reset_in_response(self, fault: Fault, chunk: bytes) -> list[Step] | None:
        """Reset the connections after `Fault.size` bytes of the response."""
        return _cut(chunk, fault.size - self.response_bytes, Action.RESET)

    def truncate(self, fault: Fault, chunk: bytes) -> list[Step] | None:
        """End the connection to the client within the response."""
        if self._cut_at is None:
            self._cut_at = fault.size or self._find_half(chunk)
        return _cut(chunk, self._cut_at - self.response_bytes, Action.CLOSE)

    def _find_half(self, chunk: bytes) -> int:
        """Return the offset of the middle of the body, or of *chunk* if the length is unknown."""
        if self._length is None:
            return len(chunk) // 2
        head = self._response.index(b"\r\n\r\n") + 4
        return head + (self._length - head) // 2

    def lengthen(self, fault: Fault, chunk: bytes) -> list[Step] | None:
        """Increase the Content-Length, and end the connection where the response ends."""
        if self._cut_at is not None:
            return _cut(chunk, self._cut_at - self.response_bytes, Action.CLOSE)
        length = _LENGTH.search(chunk)
        if self.response_bytes or length is None or self._length is None:
            return None
        self._cut_at = self._length
        number = b"%d" % (int(length[1]) + (fault.size or 1))
        longer = chunk[: length.start(1)] + number + chunk[length.end(1) :]
        return _cut(longer, self._cut_at + len(longer) - len(chunk), Action.CLOSE) or [longer]

    def garble(self, fault: Fault, chunk: bytes) -> list[Step] | None:
        """Replace some bytes with noise."""
        start = max(fault.size - self.response_bytes, 0)
        stop = min(fault.size + _NOISE - self.response_bytes, len(chunk))
        if stop <= start:
            return None
        return [chunk[:start] + self.schedule.draw_noise(stop - start) + chunk[stop:]]

    def repeat(self, _fault: Fault, chunk: bytes) -> list[Step] | None:
        """Send the response a second time when it is complete."""
        if self._length is None or len(self._response) < self._length:
            return None
        return [chunk, bytes(self._response)]


def _parse_length(response: bytearray) -> int | None:
    """Return the length of an HTTP/1 response, head and body, in bytes; None if it is unknown."""
    head, blank, _ = response.partition(b"\r\n\r\n")
    length = _LENGTH.search(head + b"\r\n") if blank else None
    return None if length is None else len(head) + len(blank) + int(length[1])


def _cut(chunk: bytes, limit: int, action: Action) -> list[Step] | None:
    """Cut *chunk* after *limit* bytes, and end with *action*; None if it is shorter."""
    if len(chunk) < limit:
        return None
    return [chunk[:limit], action] if limit > 0 else [action]


def _respond(response: Response) -> list[Step]:
    headers = {**response.headers, "content-length": len(response.body), "connection": "close"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 {response.status} \r\n{lines}\r\n".encode("latin-1")
    return [SendToClient(head + response.body), Action.CLOSE]


def _send_slowly(fault: Fault, chunk: bytes) -> list[Step]:
    steps: list[Step] = []
    step = max(fault.size, 1)
    for start in range(0, len(chunk), step):
        steps += [chunk[start : start + step], Pause(fault.seconds)]
    return steps


_Handlers: TypeAlias = Mapping[FaultKind, Callable[[Exchange, Fault, bytes], list[Step] | None]]

# In order of time: the fault that happens first hides those that would happen later.
_REQUEST_HANDLERS: _Handlers = {
    FaultKind.STALL: lambda _exchange, _fault, _chunk: [Action.DETACH],
    FaultKind.RESET_BEFORE: Exchange.reset_in_request,
    FaultKind.BUSY: lambda _exchange, fault, _chunk: _respond(canned.make_busy_response(fault)),
    FaultKind.ERROR_BEFORE: lambda _exchange, _fault, _chunk: _respond(
        canned.make_error_response()
    ),
}
_RESPONSE_HANDLERS: _Handlers = {
    FaultKind.STALL_AFTER: lambda _exchange, _fault, _chunk: [Action.DETACH],
    FaultKind.RESET_AFTER: Exchange.reset_in_response,
    FaultKind.HALF_BODY: Exchange.truncate,
    FaultKind.WRONG_LENGTH: Exchange.lengthen,
    FaultKind.ERROR_AFTER: lambda _exchange, _fault, _chunk: _respond(canned.make_error_response()),
    FaultKind.GARBAGE: Exchange.garble,
    FaultKind.HTML: lambda _exchange, _fault, _chunk: _respond(canned.make_html_response()),
    FaultKind.SLOW: lambda _exchange, fault, chunk: _send_slowly(fault, chunk),
    FaultKind.DUPLICATE: Exchange.repeat,
}
