"""The ledger's file: what its lines say, and how several processes write them at once.

Each line is a JSON object on its own: what happened (`Event`), to which launch, on which server,
and who launched. There is never a secret in it. Folded from top to bottom, the lines tell which
launches are still open.

Every writer opens the file anew and holds a lock on it for one ``write``. `compact` puts a new
file in the old one's place under the same lock, so a writer that got the lock looks whether its
file is still the one of that name. Nothing is kept open: a fork shares nothing, and a file that was
moved or deleted is made again.

All functions here block, for as long as the disk takes.
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
from kaleden._wire import converter

logger = logging.getLogger("kaleden")

LedgerPath: TypeAlias = str | os.PathLike[str]

LOCK_SECONDS: Final = 10.0
"""How long to wait for another process's lock, which it should hold for a millisecond."""

_LOCK_PAUSE: Final = 0.005
_MODE: Final = 0o600


class LedgerError(KaledenError, OSError):
    """The ledger cannot be read or written; the message says why."""


class Event(StrEnum):
    """What a line tells."""

    LAUNCHING = "launching"
    """The request is about to leave; a session may exist from now on."""
    LAUNCHED = "launched"
    """The session's id is known."""
    ENDED = "ended"
    """The session is gone, or never was, or was let go on purpose."""


@final
@frozen
class OpenLaunch:
    """A launch of which no end is written down.

    Attributes:
        token: what its owner knows it by.
        name: the session's name, as it was sent.
        session_id: the session, or None if no answer was written down.
        owner: who launched it.
        server: the server's URL.
        at: when it was launched, in seconds since 1970, by the owner's clock.
    """

    token: str
    name: str
    session_id: str | None
    owner: Owner
    server: str
    at: float

    @property
    def key(self) -> str:
        """What to call it by: its session's id, or its name where there is none."""
        return self.session_id or self.name


def read_ledger(path: LedgerPath) -> list[OpenLaunch]:
    """Read which launches are still open, whoever their owners are.

    A last line that is not whole was being written when its writer died: it is passed over. So are
    other lines that cannot be read, but those are counted in a warning.

    Raises:
        LedgerError: there is no such file, it cannot be read, or it is something else.
    """
    with _translate_errors(path):
        content = Path(path).read_bytes()

    launches, unreadable = fold(content)
    if not launches and _is_another_format(content, unreadable):
        raise LedgerError(f"{path} is no ledger: not one line of it can be read as a launch")

    if unreadable:
        logger.warning("%d lines of the ledger %s cannot be read", unreadable, path)

    return launches


def fold(content: bytes) -> tuple[list[OpenLaunch], int]:
    """Find the open launches in a ledger's text, and count the whole lines that say nothing."""
    launches: dict[tuple[Owner, str], OpenLaunch] = {}
    *lines, last = content.split(b"\n")
    unreadable = sum(not _apply(line, launches) for line in lines if line)
    _apply(last, launches)
    return list(launches.values()), unreadable


def _is_another_format(content: bytes, unreadable: int) -> bool:
    """Tell a file of which no line can be read from one with a torn first line, or with none."""
    *lines, last = content.split(b"\n")
    whole = sum(bool(line) for line in lines)
    return unreadable == whole and (whole > 0 or not b"{".startswith(last[:1]))


def encode(event: Event, launches: Iterable[OpenLaunch]) -> bytes:
    """Write a line for each launch, as the ledger has it after *event*."""
    lines = [json.dumps({"event": event, **asdict(launch)}) + "\n" for launch in launches]
    return "".join(lines).encode()


def append(path: Path, lines: bytes) -> None:
    """Add whole lines, in one ``write``, and wait until the disk has them.

    Raises:
        LedgerError: they may not be on the disk.
    """
    with _translate_errors(path), _locked(path) as file:
        _write(file, _build_separator(file) + lines)
        # The disk takes its time, and whoever compacts meanwhile reads what was written.
        _unlock(file)
        os.fsync(file)


def compact(path: Path) -> None:
    """Rewrite the file with one line for each launch that is still open.

    It is safe beside any number of writers, and at every moment the name leads to a whole ledger.

    Raises:
        LedgerError: the file is as it was.
    """
    with _translate_errors(path), _locked(path):
        launches, _ = fold(path.read_bytes())
        # What a symbolic link leads to is replaced, and not the link.
        _replace(
            path.resolve(), b"".join(encode(_get_event(launch), [launch]) for launch in launches)
        )


def _get_event(launch: OpenLaunch) -> Event:
    return Event.LAUNCHED if launch.session_id else Event.LAUNCHING


def _apply(line: bytes, launches: dict[tuple[Owner, str], OpenLaunch]) -> bool:
    """Let one line change what is open; tell whether it could be read."""
    try:
        fields = json.loads(line)
        event, launch = Event(fields["event"]), converter().structure(fields, OpenLaunch)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        return False

    if event is Event.ENDED:
        launches.pop((launch.owner, launch.token), None)
    else:
        launches[launch.owner, launch.token] = launch

    return True


@contextmanager
def _translate_errors(path: LedgerPath) -> Generator[None]:
    """Turn what the system says into an error of ours."""
    try:
        yield
    except LedgerError:
        raise
    except OSError as error:
        raise LedgerError(f"the ledger {path} cannot be used: {error.strerror or error}") from error


@contextmanager
def _locked(path: Path) -> Generator[int]:
    """Open the file that has this name now, and keep all others out."""
    file = _open_current(path)
    try:
        yield file
    finally:
        _unlock(file)
        os.close(file)


def _open_current(path: Path) -> int:
    """Open and lock the file, again where another one took its name before the lock was had."""
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
        raise LedgerError(f"the ledger {path} is no ordinary file: name another one")

    return file


def _lock(file: int, path: Path) -> None:
    """Wait for the lock, but not for ever: its holder may have been stopped by a signal."""
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
    """Let others in, also while a child that was forked meanwhile has a copy of *file*."""
    locks = _load_fcntl()
    locks.flock(file, locks.LOCK_UN)


def _load_fcntl() -> ModuleType:
    try:
        import fcntl  # noqa: PLC0415  # of POSIX systems only
    except ImportError:
        raise LedgerError("a ledger needs the file locks of a POSIX system") from None

    return fcntl


def _is_current(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _build_separator(file: int) -> bytes:
    """What to write first, lest a torn last line swallows the next."""
    size = os.fstat(file).st_size
    return b"" if size == 0 or os.pread(file, 1, size - 1) == b"\n" else b"\n"


def _write(file: int, content: bytes) -> None:
    """Write all; a disk that is full may take a part first."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(file, rest) :]


def _replace(path: Path, content: bytes) -> None:
    """Put a new file in the place of the old one; only the lock's holder makes it."""
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
    """Make the name of a new file last."""
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
