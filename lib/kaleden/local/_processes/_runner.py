"""The runner: starts, measures and ends the process trees of headless sessions.

A session's command runs in its own session (``setsid``) and, if the kernel allows it, in its own
PID namespace. When the first process of the namespace ends, the kernel kills all others. Without
a namespace, the runner kills the process group, and then every process that has the session's
marker in its environment.
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

from kaleden.local._platform._model import GIB, Forget, Session, Start, Stop
from kaleden.local._platform._state_machine import Platform
from kaleden.local._processes._procfs import PROC, Usage, kill_marked, list_children, measure_trees

MARK = "KALEDEN_LOCAL"
"""The environment variable with the marker of a session's processes."""
# Seconds. Killing takes milliseconds, but the kernel may never release a process that is blocked.
_KILL_TIMEOUT = 5.0
_UNSHARE = ("--pid", "--fork", "--kill-child", "--mount-proc")
# The first is for root, which needs no user namespace. In one, the owners of some of its files
# may not be mapped.
_NAMESPACES = (("unshare", *_UNSHARE), ("unshare", "--user", "--map-current-user", *_UNSHARE))
# Run by a session without a command; `$0` is the image.
_DEFAULT_SCRIPT = 'echo "$0: session $skaha_sessionid of $skaha_username, no command was given"'
# The kernel's limit is twice the session's limit. `Runner.check_usage` detects a small excess, and
# can record the reason. The kernel stops only an excess that could harm the machine before the
# next check.
_LIMIT_SCRIPT = 'ulimit -d "$1" 2>/dev/null; shift; exec "$@"'
# In a namespace the shell stays as the first process. The kernel does not deliver SIGTERM to the
# first process without a handler (pid_namespaces(7)), and the session's command must receive it.
_LIMIT_SCRIPT_IN_NAMESPACE = 'ulimit -d "$1" 2>/dev/null; shift; "$@"; exit $?'


@cache
def find_namespace() -> tuple[str, ...]:
    """Return the command that runs another in a PID namespace; empty if that is not possible."""
    if not (PROC / "thread-self/children").exists():
        return ()
    for command in _NAMESPACES:
        with suppress(OSError, subprocess.TimeoutExpired):
            probe = subprocess.run(  # noqa: S603 - fixed arguments
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
    """The paths of the sessions' files.

    ``home`` is the home directory, shared by all sessions. ``sessions`` has a directory for each
    session, with its log and its working directory. ``bin`` has the ``python`` command.
    """

    root: Path

    @property
    def home(self) -> Path:
        """The home directory of all sessions."""
        return self.root / "home"

    def session_directory(self, key: str) -> Path:
        """Return the directory with all files of one session."""
        return self.root / "sessions" / key

    def log_file(self, key: str) -> Path:
        """Return the file with a session's standard output and standard error."""
        return self.session_directory(key) / "log"

    def work_directory(self, key: str) -> Path:
        """Return the directory in which a session starts."""
        return self.session_directory(key) / "work"

    def prepare(self) -> None:
        """Create the shared directories and the ``python`` command."""
        self.home.mkdir(parents=True, exist_ok=True)
        shims = self.root / "bin"
        shims.mkdir(exist_ok=True)
        for name in ("python", "python3"):
            shim = shims / name
            shim.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
            shim.chmod(0o755)

    def search_path(self) -> str:
        """Return the sessions' ``PATH``; its ``python`` is the interpreter that runs this code."""
        own = (str(Path(sys.executable).parent), str(self.root / "bin"))
        return os.pathsep.join((*own, os.environ.get("PATH", os.defpath)))


@asynccontextmanager
async def temporary_directory() -> AsyncGenerator[Path]:
    """Create a temporary directory that is deleted at the end of the block."""
    make = partial(tempfile.TemporaryDirectory, prefix="kaleden-", ignore_cleanup_errors=True)
    directory = await to_thread.run_sync(make)
    try:
        yield Path(directory.name)
    finally:
        with CancelScope(shield=True):
            await to_thread.run_sync(directory.cleanup)


@define(eq=False)
class _ProcessTree:
    """The process tree of one session, running or about to start."""

    session: Session
    scope: CancelScope = field(factory=CancelScope)
    pid: int | None = None
    usage: Usage = field(factory=Usage)
    measured_at: float | None = None
    warning: tuple[str, str] | None = None


@define(eq=False)
class Runner:
    """Executes the orders of a `Platform`, and reports the results to it.

    Args:
        platform: gives the orders.
        files: the paths of the sessions' files.
        clock: returns seconds since the epoch.
        group: the task group of the sessions' tasks. When it is cancelled, all processes end.
        mark: the marker that identifies this platform's processes, in their environment.
        hostname: the host name that sessions see.
        grace: seconds between SIGTERM and SIGKILL.
        namespace: the command that runs others in a PID namespace; empty for none.
    """

    platform: Platform
    files: Files
    clock: Callable[[], float]
    group: anyio.abc.TaskGroup
    mark: str
    hostname: str
    grace: float
    namespace: tuple[str, ...]
    _trees: dict[str, _ProcessTree] = field(init=False, factory=dict[str, _ProcessTree])
    # A separate limiter, so that starting sessions does not use up the application's threads.
    _threads: CapacityLimiter = field(init=False, factory=partial(CapacityLimiter, 4))

    @property
    def alive(self) -> int:
        """The number of process trees."""
        return len(self._trees)

    def execute_orders(self) -> None:
        """Start to execute the platform's orders. Call this after each change of the platform."""
        for order in self.platform.take_orders():
            match order:
                case Start(session):
                    tree = self._trees[session.key] = _ProcessTree(session)
                    self.group.start_soon(self._supervise, tree)
                case Stop(key):
                    if key in self._trees:
                        self._trees[key].scope.cancel()
                case Forget(key):
                    self.group.start_soon(self._delete_files, key)

    async def _delete_files(self, key: str) -> None:
        with CancelScope(shield=True):
            remove = partial(shutil.rmtree, self.files.session_directory(key), ignore_errors=True)
            await to_thread.run_sync(remove, limiter=self._threads)

    async def _supervise(self, tree: _ProcessTree) -> None:
        """Run a session's process tree, from its start until its last process has ended."""
        key = tree.session.key
        code: int | None = None
        try:
            with tree.scope:
                code = await self._run(tree)
        except anyio.get_cancelled_exc_class():
            tree.warning = ("Killing", "The platform was stopped")
            raise
        finally:
            del self._trees[key]
            self.platform.ended(key, self.clock(), code, tree.warning)
            self.execute_orders()

    async def _run(self, tree: _ProcessTree) -> int | None:
        process: anyio.abc.Process | None = None
        # Do not start a session that was deleted before this task ran.
        await anyio.lowlevel.checkpoint()
        # Shielded, so that a process that has been started cannot be lost.
        with CancelScope(shield=True):
            process = await self._start(tree)
        if process is None:
            return None
        try:
            tree.pid = process.pid
            self.platform.started(tree.session.key, self.clock())
            return await process.wait()
        finally:
            with CancelScope(shield=True):
                await self._terminate(tree, process)

    async def _start(self, tree: _ProcessTree) -> anyio.abc.Process | None:
        """Start the session's process. On failure return None, and set the warning."""
        session = tree.session
        prepare = partial(self._prepare, session)
        try:
            command, log = await to_thread.run_sync(prepare, limiter=self._threads)
            with log:
                return await anyio.open_process(
                    [*self.namespace, *self._limit_memory(session, command)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=self.files.work_directory(session.key),
                    env=self._make_environment(session),
                    start_new_session=True,
                )
        # ValueError: an argument contains a NUL. OSError includes an argument that is too long.
        except (OSError, ValueError) as error:
            tree.warning = ("Failed", f"Error: failed to create containerd task: {error}")
            return None

    def _prepare(self, session: Session) -> tuple[tuple[str, ...], BinaryIO]:
        """Create the session's files; return its command, and its log, open for writing.

        Raises:
            FileNotFoundError: the command does not exist.
        """
        work = self.files.work_directory(session.key)
        work.mkdir(parents=True, exist_ok=True)
        default = ("sh", "-c", _DEFAULT_SCRIPT, session.spec.image)
        program, *arguments = session.spec.command or default
        target = str(work / program) if "/" in program else program
        found = shutil.which(target, path=self.files.search_path())
        if found is None:
            raise FileNotFoundError(f'exec: "{program}": executable file not found in $PATH')
        return (found, *arguments), self.files.log_file(session.key).open("ab")

    def _limit_memory(self, session: Session, command: tuple[str, ...]) -> tuple[str, ...]:
        """Return the command, wrapped in a shell that sets the limit on memory."""
        script = _LIMIT_SCRIPT_IN_NAMESPACE if self.namespace else _LIMIT_SCRIPT
        return ("sh", "-c", script, "sh", str(2 * session.spec.max_ram // 1024), *command)

    def _make_environment(self, session: Session) -> dict[str, str]:
        """Return a clean environment. From this process it inherits only ``PATH``."""
        return {
            "LANG": "C.UTF-8",
            "PATH": self.files.search_path(),
            **dict(session.spec.env),
            "HOME": str(self.files.home),
            "PWD": str(self.files.work_directory(session.key)),
            "OMP_NUM_THREADS": str(max(1, session.spec.millicores // 1000)),
            "skaha_hostname": self.hostname,
            "skaha_sessionid": session.id,
            "skaha_username": session.user,
            MARK: f"{self.mark}/{session.id}",
        }

    async def _terminate(self, tree: _ProcessTree, process: anyio.abc.Process) -> None:
        """End the rest of a session's tree: SIGTERM, the grace period, then SIGKILL."""
        in_thread = partial(to_thread.run_sync, limiter=self._threads)
        # A session that exceeded its memory limit is killed at once, without SIGTERM.
        alive = process.returncode is None
        if alive and tree.warning is None and await in_thread(self._send_sigterm, process.pid):
            with anyio.move_on_after(self.grace):
                await process.wait()
        if process.returncode is None:
            await in_thread(self._kill, process.pid)
            with anyio.move_on_after(self.grace):
                await process.wait()
        _signal_group(process.pid, signal.SIGKILL)
        await process.aclose()
        if not self.namespace:
            await in_thread(self._kill_marked, tree.session.id)

    def _send_sigterm(self, pid: int) -> bool:
        """Send SIGTERM, if the command has started; return whether it was sent.

        In a namespace, the command is the child of its first process, the shell.
        """
        started = not self.namespace or any(map(list_children, list_children(pid)))
        if started:
            _signal_group(pid, signal.SIGTERM)
        return started

    def _kill(self, pid: int) -> None:
        """Kill a tree.

        In a namespace, kill the first process. It ends only after the kernel has killed all others.
        """
        first = list_children(pid) if self.namespace else []
        for child in first:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        if not first:
            _signal_group(pid, signal.SIGKILL)

    def _kill_marked(self, id_: str) -> None:
        """Kill the processes that have the session's marker, until none is left."""
        deadline = time.monotonic() + _KILL_TIMEOUT
        while kill_marked(f"{MARK}={self.mark}/{id_}") and time.monotonic() < deadline:
            time.sleep(0.001)

    async def check_usage(self) -> None:
        """Measure all sessions once, and end those that exceed their memory limit."""
        trees = {tree.pid: tree for tree in self._trees.values() if tree.pid is not None}
        if not trees:
            return
        usages = await to_thread.run_sync(measure_trees, list(trees), limiter=self._threads)
        now = anyio.current_time()
        for pid, usage in usages.items():
            self._record_usage(trees[pid], usage, now)

    def _record_usage(self, tree: _ProcessTree, usage: Usage, now: float) -> None:
        cores = None
        if tree.measured_at is not None and now > tree.measured_at:
            cores = max(0.0, usage.seconds - tree.usage.seconds) / (now - tree.measured_at)
        self.platform.measured(tree.session.key, usage.ram, cores)
        tree.usage, tree.measured_at = usage, now
        limit = tree.session.spec.max_ram
        if usage.ram > limit:
            tree.warning = (
                "OOMKilled",
                f"Container used more than its limit of {limit / GIB:g} GiB",
            )
            tree.scope.cancel()


def _signal_group(pid: int, number: signal.Signals) -> None:
    """Send a signal to the process group that a session's process leads, if it still exists."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
