"""What commands say: results on standard output, all else on standard error."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import select
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final, TextIO, final

import anyio
from anyio.lowlevel import checkpoint

# What moves a terminal's cursor, or worse; line ends and tabs are ours.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

PIECE: Final = 4096
"""Bytes that a pipe takes at once if it takes any."""


class CannotWrite(OSError):
    """Standard output takes no more: its disk is full, say."""


@final
class Output:
    """Writes at once, so that no text is lost or late, whatever ends the process.

    Args:
        json: whether programs read the results.
    """

    def __init__(self, *, json: bool) -> None:
        self.json = json
        self._turn = anyio.Lock()

    def line(self, text: str) -> None:
        """Write a line of the results."""
        with _told_apart():
            _write(sys.stdout, f"{text}\n")

    def document(self, value: Any) -> None:
        """Write the results as one JSON text."""
        self.line(json.dumps(value))

    async def send(self, text: str) -> None:
        """Write results from the event loop, which goes on meanwhile: a pager may take its time.

        Raises:
            BrokenPipeError: nobody reads them any more.
            CannotWrite: they cannot be written.

        Cancellation:
            Some of the text may have been written.
        """
        async with self._turn:
            with _told_apart():
                await _send(sys.stdout, text)

    async def send_line(self, text: str) -> None:
        """Write a line of the results; see `send`."""
        await self.send(f"{text}\n")

    async def send_document(self, value: Any) -> None:
        """Write the results as one JSON text; see `send`."""
        await self.send_line(json.dumps(value))

    async def send_event(self, event: str, facts: Mapping[str, Any]) -> None:
        """Write one JSON line of a stream; see `send`."""
        await self.send_document({"event": event, **facts})

    def note(self, text: str) -> None:
        """Tell people something that is no result."""
        with suppress(OSError):
            _write(sys.stderr, f"{printable(text)}\n")

    async def send_note(self, text: str) -> None:
        """Tell people something from the event loop; see `send`."""
        async with self._turn:
            with suppress(OSError):
                await _send(sys.stderr, f"{printable(text)}\n")


def printable(text: str) -> str:
    """Show control characters as what they are, instead of sending them to a terminal."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def open_all() -> None:
    """Give what was closed before this program began a place where nothing is kept."""
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


class LogNotes(logging.Handler):
    """Shows what the library logs; what nobody reads is not waited for, least of all in a clean-up.

    Args:
        output: shows it.
    """

    def __init__(self, output: Output) -> None:
        super().__init__(logging.WARNING)
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        """Show one record."""
        number = _descriptor(sys.stderr)
        if number is None or select.select([], [number], [], 0)[1]:
            self._output.note(record.getMessage())


def let_go() -> None:
    """Let Python's own flush at the end of the process find nobody to complain to."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _told_apart() -> Generator[None]:
    """Tell a disk that is full from files that this program cannot read."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CannotWrite(f"the results cannot be written: {error}") from error


def _write(stream: TextIO, text: str) -> None:
    """Write at once, past the stream's buffer."""
    number, data = _descriptor(stream), _encoded(stream, text)
    if number is None:
        stream.write(text)
        stream.flush()
        return

    while data:
        data = data[os.write(number, data) :]


async def _send(stream: TextIO, text: str) -> None:
    """Write when there is room, so that nobody has to wait for who reads."""
    number, data = _descriptor(stream), _encoded(stream, text)
    if number is None:
        _write(stream, text)
        await checkpoint()
        return

    while data:
        await _room(number)
        data = data[os.write(number, data[:PIECE]) :]


async def _room(number: int) -> None:
    try:
        await anyio.wait_writable(number)
    except PermissionError:
        # A file, which always has room.
        await checkpoint()


def _encoded(stream: TextIO, text: str) -> memoryview:
    return memoryview(text.encode(stream.encoding or "utf-8", "backslashreplace"))


def _descriptor(stream: TextIO) -> int | None:
    stream.flush()
    if sys.platform == "win32":
        return None  # Consoles there have an encoding of their own.

    try:
        return stream.fileno()
    except (io.UnsupportedOperation, ValueError):
        return None
