"""The standard streams of a command: results on standard output, messages on standard error."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import select
import sys
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import (
    AbstractContextManager,
    contextmanager,
    redirect_stderr,
    redirect_stdout,
    suppress,
)
from functools import partial
from typing import Any, Final, TextIO, cast, final

import anyio
from anyio.lowlevel import checkpoint

DONE: Final = 0
NOT_ALL: Final = 1
REFUSED: Final = 2
UNREAD: Final = 141
"""As shells have it for a program that SIGPIPE ended."""

EXPLAINED: Final = """\
exit status:
  0    it did all that it was asked
  1    not all: something failed, or sessions may be left
  2    it did not begin: what it was given, or the login, cannot be used; nothing was sent
  130  Ctrl-C; what `run` and `demo` had launched has ended (129 and 143: SIGHUP and SIGTERM)
  141  the reader of its output has gone
"""


# What moves a terminal's cursor, or worse; line ends and tabs are ours.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

PIECE: Final = 4096
"""Bytes that a pipe takes at once if it takes any."""


class CannotWrite(Exception):
    """Standard output rejects a write, for example because the disk is full.

    It is not an OSError, because argparse in recent releases of Python ignores those.
    """


@final
class ReaderGone(CannotWrite):
    """Standard output is a pipe or a socket whose other end is closed."""


@final
class Output:
    """The results and messages of a command.

    Args:
        json: whether programs read the results.
    """

    def __init__(self, *, json: bool) -> None:
        self.json = json
        self._results = _Stream(sys.stdout, _raising)
        self._notes = _Stream(sys.stderr, partial(suppress, OSError))
        self._turn = anyio.Lock()

    @contextmanager
    def redirected(self) -> Generator[None]:
        """Send everything that argparse, rich and `print` write through this object."""
        results, notes = cast("TextIO", self._results), cast("TextIO", self._notes)
        with redirect_stdout(results), redirect_stderr(notes):
            yield

    def line(self, text: str) -> None:
        """Write a line of the results.

        Raises:
            ReaderGone: the reader has closed its end of the pipe.
            CannotWrite: the write failed for another reason.
        """
        self._results.write(f"{text}\n")

    def document(self, value: Any) -> None:
        """Write the results as one JSON text; see `line`."""
        self.line(json.dumps(value))

    async def send(self, text: str) -> None:
        """Write results without blocking the event loop: a pager can be slow to read.

        Raises:
            ReaderGone: the reader has closed its end of the pipe.
            CannotWrite: the write failed for another reason.

        Cancellation:
            Some of the text may have been written.
        """
        async with self._turn:
            await self._results.send(text)

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
        """Write a message to standard error; a message that cannot be written is dropped."""
        self._notes.write(f"{printable(text)}\n")

    def note_at_once(self, text: str) -> None:
        """Write a message, or drop it if standard error has no room for it; see `note`."""
        number = self._notes.descriptor()
        if number is None or select.select([], [number], [], 0)[1]:
            self.note(text)

    async def send_note(self, text: str) -> None:
        """Write a message without blocking the event loop; see `note`."""
        async with self._turn:
            await self._notes.send(f"{printable(text)}\n")


def printable(text: str) -> str:
    """Escape control characters, so that none reaches a terminal."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


class LogNotes(logging.Handler):
    """Shows the warnings of the library, and never blocks: some are logged in a clean-up.

    Args:
        output: shows them.
    """

    def __init__(self, output: Output) -> None:
        super().__init__(logging.WARNING)
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        """Show one record."""
        self._output.note_at_once(record.getMessage())


@final
class _Stream:
    """A standard stream without a buffer: a write is complete or has failed when it returns.

    No text is late or lost, whatever ends the process, and none is left for the interpreter to
    write at exit, where a failure would be printed and would replace the exit status.

    Args:
        stream: the stream; None, if it was closed when the process started, discards all text.
        guard: handles an OSError of a write.
    """

    def __init__(
        self, stream: TextIO | None, guard: Callable[[], AbstractContextManager[object]]
    ) -> None:
        self._stream = stream or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        self._guard = guard

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write all of *text*."""
        with self._guard():
            self._flush()
            number = self.descriptor()
            if number is None:
                self._stream.write(text)
                self._flush()
                return len(text)

            data = self._encoded(text)
            while data:
                data = data[os.write(number, data) :]
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write all of *lines*."""
        self.write("".join(lines))

    def flush(self) -> None:
        """Write the text that was written past this object, if any."""
        with self._guard():
            self._flush()

    async def send(self, text: str) -> None:
        """Write all of *text*, waiting for room without blocking the event loop."""
        number = self.descriptor()
        if number is None:
            self.write(text)
            await checkpoint()
            return

        with self._guard():
            self._flush()
            data = self._encoded(text)
            while data:
                await _room(number)
                data = data[os.write(number, data[:PIECE]) :]

    def descriptor(self) -> int | None:
        """Return the file descriptor to write to; None if only the stream itself can write."""
        if sys.platform == "win32":
            return None  # Consoles there have an encoding of their own.

        try:
            return self._stream.fileno()
        except (io.UnsupportedOperation, ValueError):
            return None

    def _encoded(self, text: str) -> memoryview:
        return memoryview(text.encode(self._stream.encoding or "utf-8", "backslashreplace"))

    def _flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            # The text is still in the buffer: let the interpreter write it to the null device.
            with suppress(OSError, ValueError), open(os.devnull, "w", encoding="utf-8") as null:
                os.dup2(null.fileno(), self._stream.fileno())
            raise


@contextmanager
def _raising() -> Generator[None]:
    """Raise an error of standard output as a type of its own, unlike those of files and sockets."""
    try:
        yield
    except ConnectionError as error:
        raise ReaderGone("standard output has no reader any more") from error
    except OSError as error:
        raise CannotWrite(f"the results cannot be written: {error}") from error


async def _room(number: int) -> None:
    try:
        await anyio.wait_writable(number)
    except PermissionError:
        # A file, which always has room.
        await checkpoint()
