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

SUCCESS: Final = 0
FAILURE: Final = 1
NOT_STARTED: Final = 2
READER_GONE: Final = 141
"""128 + 13, the status that shells report for a program that SIGPIPE ended."""

EXIT_STATUSES: Final = """\
exit status:
  0    success
  1    failure: something failed, or sessions may be left
  2    not started: the arguments or the login cannot be used; nothing was sent
  130  Ctrl-C; the sessions of `run` and `demo` have ended (129: SIGHUP, 143: SIGTERM)
  141  the reader of standard output has exited
"""


# Control characters, which can move the cursor or reconfigure a terminal; newlines and tabs are
# allowed.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

CHUNK: Final = 4096
"""Bytes; a pipe that is ready for writing accepts one chunk without blocking."""


class CannotWrite(Exception):
    """Standard output rejects a write, for example because the disk is full.

    Not a subclass of OSError, because argparse ignores OSErrors in recent releases of Python.
    """


@final
class ReaderGone(CannotWrite):
    """Standard output is a pipe or a socket, and its other end is closed."""


@final
class Output:
    """Writes the results and messages of a command.

    Args:
        json: whether results are written as JSON.
    """

    def __init__(self, *, json: bool) -> None:
        self.json = json
        self._results = _Stream(sys.stdout, _convert_errors)
        self._notes = _Stream(sys.stderr, partial(suppress, OSError))
        self._lock = anyio.Lock()

    @contextmanager
    def redirect(self) -> Generator[None]:
        """Write the output of argparse, rich and `print` through this object."""
        results, notes = cast("TextIO", self._results), cast("TextIO", self._notes)
        with redirect_stdout(results), redirect_stderr(notes):
            yield

    def write_line(self, text: str) -> None:
        """Write a line to standard output.

        Raises:
            ReaderGone: the reader has closed its end of the pipe.
            CannotWrite: the write failed for another reason.
        """
        self._results.write(f"{text}\n")

    def write_document(self, value: Any) -> None:
        """Write a value as one line of JSON; see `write_line`."""
        self.write_line(json.dumps(value))

    async def send(self, text: str) -> None:
        """Write text to standard output without blocking the event loop.

        A reader such as a pager may leave the pipe full for any time.

        Raises:
            ReaderGone: the reader has closed its end of the pipe.
            CannotWrite: the write failed for another reason.

        Cancellation:
            Some of the text may have been written.
        """
        async with self._lock:
            await self._results.send(text)

    async def send_line(self, text: str) -> None:
        """Write a line; see `send`."""
        await self.send(f"{text}\n")

    async def send_document(self, value: Any) -> None:
        """Write a value as one line of JSON; see `send`."""
        await self.send_line(json.dumps(value))

    async def send_event(self, event: str, facts: Mapping[str, Any]) -> None:
        """Write an event as one line of JSON; see `send`."""
        await self.send_document({"event": event, **facts})

    def write_note(self, text: str) -> None:
        """Write a message to standard error; drop it if the write fails."""
        self._notes.write(f"{escape_controls(text)}\n")

    def write_note_nowait(self, text: str) -> None:
        """Write a message, or drop it if the write would block; see `write_note`."""
        number = self._notes.descriptor()
        if number is None or select.select([], [number], [], 0)[1]:
            self.write_note(text)

    async def send_note(self, text: str) -> None:
        """Write a message without blocking the event loop; see `note`."""
        async with self._lock:
            await self._notes.send(f"{escape_controls(text)}\n")


def escape_controls(text: str) -> str:
    """Escape control characters, so that text of a server cannot control the terminal."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


class LogHandler(logging.Handler):
    """Writes the library's warnings to standard error.

    It never blocks, because some warnings are logged during a clean-up.
    """

    def __init__(self, output: Output) -> None:
        super().__init__(logging.WARNING)
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        self._output.write_note_nowait(record.getMessage())


@final
class _Stream:
    """An unbuffered standard stream: a write has succeeded or failed when it returns.

    No text is delayed, or lost when the process ends. No text is left for the interpreter to
    write at exit, where it would print a failure and replace the exit status.

    Args:
        stream: the stream; None if it was closed when the process started: text is discarded.
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

            data = self._encode(text)
            while data:
                data = data[os.write(number, data) :]
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write all of *lines*."""
        self.write("".join(lines))

    def flush(self) -> None:
        """Flush text that was written to the underlying stream."""
        with self._guard():
            self._flush()

    async def send(self, text: str) -> None:
        """Write all of *text* without blocking the event loop."""
        number = self.descriptor()
        if number is None:
            self.write(text)
            await checkpoint()
            return

        with self._guard():
            self._flush()
            data = self._encode(text)
            while data:
                await _wait_writable(number)
                data = data[os.write(number, data[:CHUNK]) :]

    def descriptor(self) -> int | None:
        """Return the file descriptor; None if text must be written through the stream."""
        if sys.platform == "win32":
            return None  # Windows consoles have their own encoding.

        try:
            return self._stream.fileno()
        except (io.UnsupportedOperation, ValueError):
            return None

    def _encode(self, text: str) -> memoryview:
        return memoryview(text.encode(self._stream.encoding or "utf-8", "backslashreplace"))

    def _flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            # The text is still in the buffer, and the interpreter flushes it at exit: redirect the
            # descriptor to the null device.
            with suppress(OSError, ValueError), open(os.devnull, "w", encoding="utf-8") as null:
                os.dup2(null.fileno(), self._stream.fileno())
            raise


@contextmanager
def _convert_errors() -> Generator[None]:
    """Raise `CannotWrite` for an OSError, to distinguish it from errors of files and sockets."""
    try:
        yield
    except ConnectionError as error:
        raise ReaderGone("the reader of standard output has exited") from error
    except OSError as error:
        raise CannotWrite(f"the results cannot be written: {error}") from error


async def _wait_writable(number: int) -> None:
    try:
        await anyio.wait_writable(number)
    except PermissionError:
        # epoll rejects regular files (EPERM); these are always writable.
        await checkpoint()
