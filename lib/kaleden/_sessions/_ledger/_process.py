"""Who launched a session, and whether that process still lives.

A process is known by its machine, its number and the time at which it started, since numbers are
used again. To take a living process for a dead one would end somebody's sessions, so whatever
cannot be told from here, such as a process in another container, is `ProcessStatus.UNKNOWN`.

On Linux all of it is read from ``/proc``. Elsewhere ``ps`` tells when a process started, and the
machine is known by its name only.
"""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Final, final

from attrs import evolve, frozen

_PROC: Final = Path("/proc")
_ROOT_NAMESPACE: Final = "pid:[4026531836]"
"""The processes of a Linux machine itself, and of no container; the kernel fixes this number."""

_UNKNOWN_START: Final = ""
"""In place of a start time: nobody could be asked."""


class ProcessStatus(StrEnum):
    """What is known of a process."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"
    """It ran where this process cannot look."""


@final
@frozen
class Owner:
    """One client of one process.

    Attributes:
        host: the machine's name.
        machine: a digest of what tells machines of one name apart; empty if nothing does.
        boot: what the kernel calls its present run; empty where it does not say.
        space: the set of processes that can see each other: a container has its own.
        pid: the process's number.
        started: when it started, in the system's own words; empty if unknown.
        client: tells the clients of one process apart.
    """

    host: str
    machine: str
    boot: str
    pid_namespace: str
    pid: int
    started: str
    client: str


def this_owner(client: str) -> Owner:
    """Describe this process; after a fork the child describes itself."""
    return evolve(_describe(os.getpid()), client=client)


def is_alive(owner: Owner) -> bool:
    """Tell whether *owner* may still be at work; what cannot be told counts as alive."""
    return process_status(owner) is not ProcessStatus.DEAD


def process_status(owner: Owner) -> ProcessStatus:
    """Find out what is known of *owner* from here."""
    return find_status(owner, _describe(os.getpid()))


def find_status(owner: Owner, here: Owner) -> ProcessStatus:
    """Find out what the process *here* can know of *owner*."""
    if not _is_same_run(owner, here):
        return ProcessStatus.DEAD if _is_earlier_run(owner, here) else ProcessStatus.UNKNOWN

    started = read_start_time(owner.pid)
    if _UNKNOWN_START in {started, owner.started}:
        return ProcessStatus.UNKNOWN

    return ProcessStatus.ALIVE if started == owner.started else ProcessStatus.DEAD


def read_start_time(pid: int) -> str | None:
    """Tell when a process started; None if there is none of that number."""
    return _query_proc(pid) if _has_proc() else query_ps(pid)


def query_ps(pid: int) -> str | None:
    """Ask the command that every POSIX system has; it knows seconds."""
    command = ["ps", "-o", "stat=", "-o", "lstart=", "-p", str(pid)]
    environment = {"LC_ALL": "C", "TZ": "UTC", "PATH": os.environ.get("PATH", os.defpath)}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603  # our own words
    except OSError:
        return _UNKNOWN_START

    state, _, started = done.stdout.strip().partition(" ")
    return None if not state or _has_ended(state) else started.strip()


def _query_proc(pid: int) -> str | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None

    # The second field is the program's name in parentheses, and may hold anything.
    fields = text.rpartition(")")[2].split()
    state, started = fields[0], fields[19]
    return None if _has_ended(state) else started


def _has_ended(state: str) -> bool:
    """Whether only the record of a process is left: nobody has asked for its exit status."""
    return state[0] in "ZX"


def _is_same_run(owner: Owner, here: Owner) -> bool:
    """Whether *owner* ran since this machine's start, and where its processes can be seen."""
    if (owner.boot, owner.pid_namespace) != (here.boot, here.pid_namespace):
        return False

    return here.boot != "" or owner.host == here.host


def _is_earlier_run(owner: Owner, here: Owner) -> bool:
    """Whether *owner* ran on this very machine, before it was started anew.

    Containers on two machines may have all of their names in common, so they do not count.
    """
    if here.machine == "" or here.boot == owner.boot:
        return False

    same = (owner.host, owner.machine) == (here.host, here.machine)
    return same and owner.pid_namespace == here.pid_namespace == _ROOT_NAMESPACE


def _has_proc() -> bool:
    return (_PROC / "self" / "stat").exists()


@lru_cache(maxsize=1)
def _describe(pid: int) -> Owner:
    started = read_start_time(pid) or _UNKNOWN_START
    machine = _digest(_read(Path("/etc/machine-id")))
    boot = _read(_PROC / "sys" / "kernel" / "random" / "boot_id")
    return Owner(
        socket.gethostname(), machine, boot, _read_pid_namespace(), pid, started, client=""
    )


def _read_pid_namespace() -> str:
    try:
        return str((_PROC / "self" / "ns" / "pid").readlink())
    except OSError:
        return ""


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _digest(text: str) -> str:
    """Shorten an identity that is not for others' eyes, as machine-id(5) asks."""
    return hashlib.sha256(b"kaleden " + text.encode()).hexdigest()[:16] if text else ""
