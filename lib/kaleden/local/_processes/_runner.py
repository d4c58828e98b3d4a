"""Headless sessions as local processes: started, watched, measured, and ended as whole trees.

A session's command runs in a session (``setsid``) of its own and, where the kernel allows it, as
the first process of a PID namespace: with that process all others end, whatever they did to
get away. Elsewhere its process group is killed, and then every process that carries the session's
mark in its environment.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import BinaryIO

import anyio
import anyio.abc
import anyio.lowlevel
from anyio import CancelScope, CapacityLimiter, to_thread
from attrs import define, field, frozen

from kaleden.local._platform._model import GIB, Forget, Order, Session, Spec, Start, Stop
from kaleden.local._platform._state_machine import Platform
from kaleden.local._processes._procfs import PROC, Usage, children_of, kill_marked, tree_usage

MARK = "KALEDEN_LOCAL"
# Seconds: to end them all takes milliseconds, and for ever if the kernel does not let one go.
_SWEEP = 5.0
_UNSHARE = ("--pid", "--fork", "--kill-child", "--mount-proc")
# The first is for root, whose files other users may not be mapped into a namespace.
_NAMESPACES = (
    ("unshare", *_UNSHARE),
    ("unshare", "--user", "--map-current-user", *_UNSHARE),
)
# Twice the limit: who goes beyond it a little is told so by the watch, which can say why; the
# kernel refuses only what could do the machine harm before the watch comes round again.
_LIMITED = 'ulimit -d "$1" 2>/dev/null; shift; exec "$@"'
# In a namespace the shell stays, as its first process: the kernel keeps SIGTERM from a first
# process that does not expect it, and the session's command is to have it.
_LIMITED_FIRST = 'ulimit -d "$1" 2>/dev/null; shift; "$@"; exit $?'


@cache
def find_namespace() -> tuple[str, ...]:
    """Find the command that starts another in a PID namespace; empty if the kernel refuses."""
    if not (PROC / "thread-self/children").exists():
        return ()
    for command in _NAMESPACES:
        with suppress(OSError, subprocess.TimeoutExpired):
            probe = subprocess.run(  # noqa: S603 - fixed words
                [*command, "true"],
                check=False,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=5,
            )
            if probe.returncode == 0:
                return command
    return ()


@frozen
class Files:
    """Where the sessions' files are.

    ``home`` is the user's, shared by all sessions; ``sessions`` has a directory for each, with
    its log and its working directory; ``bin`` has a ``python`` for those who ask for one.
    """

    root: Path

    @property
    def home(self) -> Path:
        """The home directory of all sessions."""
        return self.root / "home"

    def of(self, key: str) -> Path:
        """Everything of one session."""
        return self.root / "sessions" / key

    def log(self, key: str) -> Path:
        """What a session wrote to its standard output and error."""
        return self.of(key) / "log"

    def work(self, key: str) -> Path:
        """The directory a session starts in."""
        return self.of(key) / "work"

    def prepare(self) -> None:
        """Make the directories that are there for all, and the ``python`` command."""
        self.home.mkdir(parents=True, exist_ok=True)
        shims = self.root / "bin"
        shims.mkdir(exist_ok=True)
        for name in ("python", "python3"):
            shim = shims / name
            shim.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
            shim.chmod(0o755)

    def path(self) -> str:
        """The sessions' PATH; ``python`` in it is the interpreter that runs this."""
        own = (str(Path(sys.executable).parent), str(self.root / "bin"))
        return os.pathsep.join((*own, os.environ.get("PATH", os.defpath)))


@asynccontextmanager
async def temporary_directory() -> AsyncGenerator[Path]:
    """Give a directory for the time of the block."""
    make = partial(tempfile.TemporaryDirectory, prefix="kaleden-", ignore_cleanup_errors=True)
    directory = await to_thread.run_sync(make)
    try:
        yield Path(directory.name)
    finally:
        with CancelScope(shield=True):
            await to_thread.run_sync(directory.cleanup)


def default_command(spec: Spec) -> tuple[str, ...]:
    """What an image does by itself: it says what it is, and ends."""
    say = 'echo "$0: session $skaha_sessionid of $skaha_username, no command was given"'
    return ("sh", "-c", say, spec.image)


@define(eq=False)
class _Job:
    """A process tree that lives, or is about to."""

    session: Session
    scope: CancelScope = field(factory=CancelScope)
    pid: int | None = None
    usage: Usage = field(factory=Usage)
    measured: float | None = None
    why: tuple[str, str] | None = None


@define(eq=False)
class Runner:
    """Carries out the orders of a `Platform`, and reports to it.

    Args:
        platform: who gives the orders.
        files: where files go.
        clock: gives seconds since the epoch.
        group: where the sessions' tasks live; its end is the end of all processes.
        mark: what the processes of this platform are known by, in their environment.
        hostname: what sessions are told of their host.
        grace: seconds that processes have between SIGTERM and SIGKILL.
        namespace: the command that starts others in a PID namespace.
    """

    platform: Platform
    files: Files
    clock: Callable[[], float]
    group: anyio.abc.TaskGroup
    mark: str
    hostname: str
    grace: float
    namespace: tuple[str, ...]
    _jobs: dict[str, _Job] = field(init=False, factory=dict[str, _Job])
    # Its own, so that starting sessions takes no threads from the application.
    _threads: CapacityLimiter = field(init=False, factory=partial(CapacityLimiter, 4))

    @property
    def alive(self) -> int:
        """How many process trees there are."""
        return len(self._jobs)

    def settle(self) -> None:
        """Begin what the platform has ordered. To be called whenever it may have decided."""
        for order in self.platform.take_orders():
            self._carry_out(order)

    def _carry_out(self, order: Order) -> None:
        match order:
            case Start(session):
                job = self._jobs[session.key] = _Job(session)
                self.group.start_soon(self._supervise, job)
            case Stop(key):
                if key in self._jobs:
                    self._jobs[key].scope.cancel()
            case Forget(key):
                self.group.start_soon(self._forget, key)

    async def _forget(self, key: str) -> None:
        with CancelScope(shield=True):
            remove = partial(shutil.rmtree, self.files.of(key), ignore_errors=True)
            await to_thread.run_sync(remove, limiter=self._threads)

    async def _supervise(self, job: _Job) -> None:
        """See a session's process through, from its start to the end of the last of its tree."""
        key = job.session.key
        code: int | None = None
        try:
            with job.scope:
                code = await self._run(job)
        except anyio.get_cancelled_exc_class():
            job.why = ("Killing", "The platform was stopped")
            raise
        finally:
            del self._jobs[key]
            self.platform.ended(key, self.clock(), code, job.why)
            self.settle()

    async def _run(self, job: _Job) -> int | None:
        process: anyio.abc.Process | None = None
        # Who was deleted before this began is not started.
        await anyio.lowlevel.checkpoint()
        # Not to be interrupted: a process that was started has to be known.
        with CancelScope(shield=True):
            process = await self._start(job)
        if process is None:
            return None
        try:
            job.pid = process.pid
            self.platform.started(job.session.key, self.clock())
            return await process.wait()
        finally:
            with CancelScope(shield=True):
                await self._end(job, process)

    async def _start(self, job: _Job) -> anyio.abc.Process | None:
        """Start the session's process; None, and a reason, if that cannot be done."""
        session = job.session
        prepare = partial(self._prepare, session)
        try:
            command, log = await to_thread.run_sync(prepare, limiter=self._threads)
            with log:
                return await anyio.open_process(
                    [*self.namespace, *self._limited(session, command)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=self.files.work(session.key),
                    env=self._environment(session),
                    start_new_session=True,
                )
        # Words may be too long for the system, or have a NUL in them.
        except (OSError, ValueError) as error:
            job.why = ("Failed", f"Error: failed to create containerd task: {error}")
            return None

    def _prepare(self, session: Session) -> tuple[tuple[str, ...], BinaryIO]:
        """Make the session's files; return its command, and its log to write to.

        Raises:
            FileNotFoundError: there is no such command.
        """
        work = self.files.work(session.key)
        work.mkdir(parents=True, exist_ok=True)
        program, *words = session.spec.command or default_command(session.spec)
        place = str(work / program) if "/" in program else program
        found = shutil.which(place, path=self.files.path())
        if found is None:
            raise FileNotFoundError(f'exec: "{program}": executable file not found in $PATH')
        return (found, *words), self.files.log(session.key).open("ab")

    def _limited(self, session: Session, command: tuple[str, ...]) -> tuple[str, ...]:
        """The command, started by way of a shell that sets the limit on memory."""
        script = _LIMITED_FIRST if self.namespace else _LIMITED
        return ("sh", "-c", script, "sh", str(2 * session.spec.max_ram // 1024), *command)

    def _environment(self, session: Session) -> dict[str, str]:
        """A clean one: nothing of this process's own but where programs are."""
        return {
            "LANG": "C.UTF-8",
            "PATH": self.files.path(),
            **dict(session.spec.env),
            "HOME": str(self.files.home),
            "PWD": str(self.files.work(session.key)),
            "OMP_NUM_THREADS": str(max(1, session.spec.millicores // 1000)),
            "skaha_hostname": self.hostname,
            "skaha_sessionid": session.id,
            "skaha_username": session.user,
            MARK: f"{self.mark}/{session.id}",
        }

    async def _end(self, job: _Job, process: anyio.abc.Process) -> None:
        """End what is left of a session's tree: ask, wait for the grace, then kill."""
        in_thread = partial(to_thread.run_sync, limiter=self._threads)
        # Who is ended for a reason of its own, its use of memory, is not asked.
        alive = process.returncode is None
        if alive and job.why is None and await in_thread(self._ask, process.pid):
            with anyio.move_on_after(self.grace):
                await process.wait()
        if process.returncode is None:
            await in_thread(self._kill, process.pid)
            with anyio.move_on_after(self.grace):
                await process.wait()
        _signal_group(process.pid, signal.SIGKILL)
        await process.aclose()
        if not self.namespace:
            await in_thread(self._sweep, job.session.id)

    def _ask(self, pid: int) -> bool:
        """Send SIGTERM, if there is a command to hear it: in a namespace, its shell's child."""
        begun = not self.namespace or any(map(children_of, children_of(pid)))
        if begun:
            _signal_group(pid, signal.SIGTERM)
        return begun

    def _kill(self, pid: int) -> None:
        """Kill a tree; of a namespace, its first process, which ends when all others have."""
        first = children_of(pid) if self.namespace else []
        for child in first:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        if not first:
            _signal_group(pid, signal.SIGKILL)

    def _sweep(self, id_: str) -> None:
        """Kill what carries the session's mark, until there is nothing that does."""
        deadline = time.monotonic() + _SWEEP
        while kill_marked(f"{MARK}={self.mark}/{id_}") and time.monotonic() < deadline:
            time.sleep(0.001)

    async def watch(self) -> None:
        """Measure all sessions once, and end those that use more memory than they may."""
        jobs = {job.pid: job for job in self._jobs.values() if job.pid is not None}
        if not jobs:
            return
        usages = await to_thread.run_sync(tree_usage, list(jobs), limiter=self._threads)
        now = anyio.current_time()
        for pid, usage in usages.items():
            self._note_usage(jobs[pid], usage, now)

    def _note_usage(self, job: _Job, usage: Usage, now: float) -> None:
        cores = None
        if job.measured is not None and now > job.measured:
            cores = max(0.0, usage.seconds - job.usage.seconds) / (now - job.measured)
        self.platform.measured(job.session.key, usage.ram, cores)
        job.usage, job.measured = usage, now
        limit = job.session.spec.max_ram
        if usage.ram > limit:
            job.why = ("OOMKilled", f"Container used more than its limit of {limit / GIB:g} GiB")
            job.scope.cancel()


def _signal_group(pid: int, number: signal.Signals) -> None:
    """Send a signal to the process group that a session's process leads, if any of it is left."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
