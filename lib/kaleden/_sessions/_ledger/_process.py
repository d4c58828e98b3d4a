"""The identity of the process that launched a session, and whether it is alive.

A process is identified by its machine, its pid and its start time, since pids are reused. If a
running process were taken for dead, its sessions would be destroyed. So if the state of
a process cannot be found from here, as for another container, it is `ProcessStatus.UNKNOWN`.

On Linux, all values are read from ``/proc`` and ``/etc/machine-id``. Elsewhere, ``ps`` gives the
start time, and the host name alone identifies the machine.
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
"""The pid namespace of a Linux machine outside containers; the kernel fixes this number."""

_UNKNOWN_START: Final = ""
"""The start time of a process for which it could not be read."""


class ProcessStatus(StrEnum):
    """The state of a process, as far as it is known."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"
    """It ran where this process cannot observe it."""


@final
@frozen
class Owner:
    """One client of one process.

    Attributes:
        host: the name of the machine.
        machine: a digest that distinguishes machines of the same name; empty if not known.
        boot: the kernel's id of the present boot; empty if not known.
        pid_namespace: the set of processes that can see each other; each container has its own.
        pid: the number of the process.
        started: the start time of the process, in the system's format; empty if not known.
        client: distinguishes the clients of one process.
    """

    host: str
    machine: str
    boot: str
    pid_namespace: str
    pid: int
    started: str
    client: str


def get_this_owner(client: str) -> Owner:
    """Return the identity of this process; a forked child has its own."""
    return evolve(_describe(os.getpid()), client=client)


def find_process_status(owner: Owner) -> ProcessStatus:
    """Return the state of *owner*, as far as this process can find it."""
    return find_status(owner, _describe(os.getpid()))


def find_status(owner: Owner, here: Owner) -> ProcessStatus:
    """Return the state of *owner*, as far as the process *here* can find it."""
    if not _is_same_run(owner, here):
        return ProcessStatus.DEAD if _is_earlier_run(owner, here) else ProcessStatus.UNKNOWN

    started = read_start_time(owner.pid)
    if _UNKNOWN_START in {started, owner.started}:
        return ProcessStatus.UNKNOWN

    return ProcessStatus.ALIVE if started == owner.started else ProcessStatus.DEAD


def read_start_time(pid: int) -> str | None:
    """Return the start time of a process; None if no process has that pid."""
    return _query_proc(pid) if _has_proc() else query_ps(pid)


def query_ps(pid: int) -> str | None:
    """Read the start time from ``ps``, which every POSIX system has, to the second."""
    command = ["ps", "-o", "stat=", "-o", "lstart=", "-p", str(pid)]
    environment = {"LC_ALL": "C", "TZ": "UTC", "PATH": os.environ.get("PATH", os.defpath)}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603  # a fixed command
    except OSError:
        return _UNKNOWN_START

    state, _, started = done.stdout.strip().partition(" ")
    return None if not state or _has_ended(state) else started.strip()


def _query_proc(pid: int) -> str | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None

    # The second field is the name of the program in parentheses, and may contain any character.
    fields = text.rpartition(")")[2].split()
    state, started = fields[0], fields[19]
    return None if _has_ended(state) else started


def _has_ended(state: str) -> bool:
    """Return whether the process is a zombie: ended, but not yet waited for by its parent."""
    return state[0] in "ZX"


def _is_same_run(owner: Owner, here: Owner) -> bool:
    """Return whether *owner* ran in the present boot, in the pid namespace of *here*."""
    if (owner.boot, owner.pid_namespace) != (here.boot, here.pid_namespace):
        return False

    return here.boot != "" or owner.host == here.host


def _is_earlier_run(owner: Owner, here: Owner) -> bool:
    """Return whether *owner* ran on this machine before its last boot.

    Containers on two machines may have the same names and ids, so they do not count.
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
    """Return a digest of a confidential id, as machine-id(5) requires."""
    return hashlib.sha256(b"kaleden " + text.encode()).hexdigest()[:16] if text else ""
