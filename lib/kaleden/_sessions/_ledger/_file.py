"""The file of the ledger: its format, and concurrent writes by several processes.

Each line is a JSON object with an `Event`, the launch, the server and the owner. It never contains
a secret. Reading the lines from top to bottom gives the launches that are still open.

Each writer opens the file again and holds a lock on it for one ``write``. `compact` replaces the
file under the same lock. So a writer that has the lock checks that its file still has the name.
No file is kept open: a fork shares no descriptor, and a file that was moved or deleted is created
again.

All functions here block until the disk is done.
"""

from __future__ import annotations

import json
import logging
import os
import stat
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Final, TypeAlias, final

from attrs import asdict, frozen

from kaleden._errors import KaledenError
from kaleden._sessions._ledger._process import Owner
from kaleden._wire import get_converter

logger = logging.getLogger("kaleden")

LedgerPath: TypeAlias = str | os.PathLike[str]

LOCK_SECONDS: Final = 10.0
"""Seconds to wait for the lock; another process normally holds it for a millisecond."""

_LOCK_PAUSE: Final = 0.005
_MODE: Final = 0o600


class LedgerError(KaledenError, OSError):
    """The ledger cannot be read or written; the message gives the reason."""


class Event(StrEnum):
    """The event that a line records."""

    LAUNCHING = "launching"
    """The request is about to be sent; a session may exist from now on."""
    LAUNCHED = "launched"
    """The session's id is known."""
    ENDED = "ended"
    """The session is gone, was never created, or was released."""


@final
@frozen
class OpenLaunch:
    """A launch without a recorded end.

    Attributes:
        token: identifies the launch among those of its owner.
        name: the name of the session, as it was sent.
        session_id: the id of the session; None if none was recorded.
        owner: the client that launched it.
        server: the URL of the server.
        at: the time of the launch, in seconds since 1970, on the clock of the owner.
    """

    token: str
    name: str
    session_id: str | None
    owner: Owner
    server: str
    at: float

    @property
    def key(self) -> str:
        """The key of its outcome: the id of the session, or its name if the id is not known."""
        return self.session_id or self.name


def read_ledger(path: LedgerPath) -> list[OpenLaunch]:
    """Read the open launches of all owners.

    An incomplete last line was being written when its writer died; it is ignored. Other lines that
    cannot be parsed are also ignored, but a warning gives their number.

    Raises:
        LedgerError: the file does not exist, cannot be read, or is not a ledger.
    """
    with _translate_errors(path):
        content = Path(path).read_bytes()

    launches, unreadable = fold(content)
    if not launches and _is_another_format(content, unreadable):
        raise LedgerError(f"{path} is not a ledger: not one line of it can be read as a launch")

    if unreadable:
        logger.warning("%d lines of the ledger %s cannot be read", unreadable, path)

    return launches


def fold(content: bytes) -> tuple[list[OpenLaunch], int]:
    """Return the open launches in a ledger, and the number of complete lines that are invalid."""
    launches: dict[tuple[Owner, str], OpenLaunch] = {}
    *lines, last = content.split(b"\n")
    unreadable = sum(not _apply(line, launches) for line in lines if line)
    _apply(last, launches)
    return list(launches.values()), unreadable


def _is_another_format(content: bytes, unreadable: int) -> bool:
    """Return whether no line can be parsed; a torn or missing first line does not count."""
    *lines, last = content.split(b"\n")
    whole = sum(bool(line) for line in lines)
    return unreadable == whole and (whole > 0 or not b"{".startswith(last[:1]))


def encode(event: Event, launches: Iterable[OpenLaunch]) -> bytes:
    """Encode *event* as one line for each launch."""
    lines = [json.dumps({"event": event, **asdict(launch)}) + "\n" for launch in launches]
    return "".join(lines).encode()


def append(path: Path, lines: bytes) -> None:
    """Append complete lines in one ``write``, and wait until they are on the disk.

    Raises:
        LedgerError: the lines may not be on the disk.
    """
    with _translate_errors(path), _open_locked(path) as file:
        _write(file, _build_separator(file) + lines)
        # Release the lock before the slow flush. A concurrent `compact` already reads these lines.
        _unlock(file)
        os.fsync(file)


def compact(path: Path) -> None:
    """Rewrite the file with one line for each launch that is still open.

    Other processes can write at the same time. The name always refers to a complete ledger.

    Raises:
        LedgerError: the file is unchanged.
    """
    with _translate_errors(path), _open_locked(path):
        launches, _ = fold(path.read_bytes())
        lines = [
            encode(Event.LAUNCHED if launch.session_id else Event.LAUNCHING, [launch])
            for launch in launches
        ]
        # Replace the target of a symbolic link, not the link.
        _replace(path.resolve(), b"".join(lines))


def _apply(line: bytes, launches: dict[tuple[Owner, str], OpenLaunch]) -> bool:
    """Apply one line to the open launches; return whether it could be parsed."""
    try:
        fields = json.loads(line)
        event, launch = Event(fields["event"]), get_converter().structure(fields, OpenLaunch)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        return False

    if event is Event.ENDED:
        launches.pop((launch.owner, launch.token), None)
    else:
        launches[launch.owner, launch.token] = launch

    return True


@contextmanager
def _translate_errors(path: LedgerPath) -> Generator[None]:
    """Convert an `OSError` to a `LedgerError`."""
    try:
        yield
    except LedgerError:
        raise
    except OSError as error:
        raise LedgerError(f"the ledger {path} cannot be used: {error.strerror or error}") from error


@contextmanager
def _open_locked(path: Path) -> Generator[int]:
    """Open the file that has this name now, and hold an exclusive lock on it."""
    file = _open_current(path)
    try:
        yield file
    finally:
        _unlock(file)
        os.close(file)


def _open_current(path: Path) -> int:
    """Open and lock the file; repeat if it was replaced before the lock was acquired."""
    _load_fcntl()
    while True:
        file = _open(path)
        try:
            _lock(file, path)
            if _is_current(file, path):
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _open(path: Path) -> int:
    flags = os.O_RDWR | os.O_APPEND
    try:
        file = os.open(path, flags)
    except FileNotFoundError:
        file = os.open(path, flags | os.O_CREAT, _MODE)
        _sync_directory(path)

    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise LedgerError(f"the ledger {path} is not a regular file: name another one")

    return file


def _lock(file: int, path: Path) -> None:
    """Wait for the lock, with a time-out: a signal may have stopped its holder."""
    locks = _load_fcntl()
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            locks.flock(file, locks.LOCK_EX | locks.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                msg = f"another process has held the lock of {path} for {LOCK_SECONDS:g} seconds"
                raise LedgerError(msg) from None

            time.sleep(_LOCK_PAUSE)
        else:
            return


def _unlock(file: int) -> None:
    """Release the lock, even if a forked child has a copy of *file*."""
    locks = _load_fcntl()
    locks.flock(file, locks.LOCK_UN)


def _load_fcntl() -> ModuleType:
    try:
        import fcntl  # noqa: PLC0415  # POSIX only
    except ImportError:
        raise LedgerError("a ledger needs the file locks of a POSIX system") from None

    return fcntl


def _is_current(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _build_separator(file: int) -> bytes:
    """Return a line break if the last line is torn, so that the next line stays separate."""
    size = os.fstat(file).st_size
    return b"" if size == 0 or os.pread(file, 1, size - 1) == b"\n" else b"\n"


def _write(file: int, content: bytes) -> None:
    """Write all of *content*; one ``write`` may write only a part, as on a full disk."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(file, rest) :]


def _replace(path: Path, content: bytes) -> None:
    """Replace the file; the caller holds its lock."""
    new = path.with_name(f"{path.name}.compacting")
    new.unlink(missing_ok=True)
    file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE)
    try:
        _write(file, content)
        os.fsync(file)
    finally:
        os.close(file)

    new.replace(path)
    _sync_directory(path)


def _sync_directory(path: Path) -> None:
    """Flush the directory entry of a new file to the disk."""
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
