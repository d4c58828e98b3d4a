"""Parsl's blocks as headless sessions: a provider for Parsl, such as it has for Slurm.

::

    with SkahaProvider("skaha/astroml:latest", max_blocks=4) as provider:
        executor = HighThroughputExecutor(provider=provider, max_workers_per_node=1)
        with parsl.load(Config(executors=[executor])):
            ...

It needs the extra ``parsl``. ``docs/how-to/use-with-parsl.md`` has a whole program.
"""

# Where Parsl is not installed, all its types are unknown, which strictness takes for errors.
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any, Final, Self, final

from attrs import evolve

from kaleden._errors import (
    ConfigurationError,
    InvalidRequest,
    KaledenError,
    ScopeClosed,
    ScopeError,
)
from kaleden._public import publish as _publish
from kaleden._results._batch import Failure
from kaleden._sessions._launch._script_env import (
    BEGIN,
    VARIABLE,
    check_blocks,
    encode_script,
    to_session_name,
)
from kaleden._sync import Session, SyncScope
from kaleden._wire import SessionInfo, SessionKind, SessionSpec, SessionStatus

try:
    from parsl.jobs.states import JobState, JobStatus
    from parsl.launchers import SimpleLauncher
    from parsl.launchers.base import Launcher
    from parsl.providers.base import ExecutionProvider
    from parsl.providers.errors import ExecutionProviderException, SubmitException
except ModuleNotFoundError as error:
    if error.name != "parsl":
        raise
    raise ImportError("kaleden.parsl needs Parsl: pip install 'kaleden[parsl]'") from error

__all__ = ("SkahaProvider",)

_TAIL: Final = 2000
"""Characters at the end of a failed block's log that its message shows."""

_SIMPLE: Final = SimpleLauncher()

_STATES: Final = {
    SessionStatus.PENDING: JobState.PENDING,
    SessionStatus.RUNNING: JobState.RUNNING,
    # Somebody has deleted it, so its workers are no capacity any more.
    SessionStatus.TERMINATING: JobState.CANCELLED,
    SessionStatus.COMPLETED: JobState.COMPLETED,
    SessionStatus.SUCCEEDED: JobState.COMPLETED,
    SessionStatus.FAILED: JobState.FAILED,
    SessionStatus.ERROR: JobState.FAILED,
}


@final
class SkahaProvider(ExecutionProvider):
    """Runs Parsl's blocks as headless sessions, which cannot outlive it.

    ::

        with SkahaProvider("skaha/astroml:latest", max_blocks=4) as provider:
            executor = HighThroughputExecutor(provider=provider, max_workers_per_node=1)
            with parsl.load(Config(executors=[executor])):
                ...

    All blocks belong to one scope, which is opened with the first of them. However the ``with``
    block is left, what Parsl has not ended is destroyed, and verified by a list; a launch whose
    answer was lost is looked for as well. Without ``with``, call `close`; failing that, it happens
    at the end of the program.

    A block is one session on one node, in an image that has Parsl in the version, and Python in the
    minor version, of this program. Its workers connect to this program, so the sessions must be
    able to reach it: see the *address* of the executor. Its script does not go into the session's
    command, which the server splits at spaces, and where it takes no quotes and no ``$``: it goes
    as base64 in a variable of the environment, and a line of Python starts ``bash`` with it, or
    ``sh`` where that is missing.

    Any thread may use it.

    Args:
        image: the container image.
        session: the client to launch them with, which stays open; None for one of its own, as
            ``Session()`` makes it. One with a *ledger* lets `reap` end what a killed program left.
        cores: CPU cores of a block; None for flexible resources. Without it, say
            ``max_workers_per_node``: Parsl counts the cores of the whole machine.
        ram: memory of a block in GiB; None for flexible resources.
        gpu: GPUs of a block.
        env: environment variables of the blocks.
        worker_init: shell lines to run before the workers, such as ``"source activate my-env"``.
        init_blocks: how many blocks to begin with.
        min_blocks: how many to keep.
        max_blocks: how many to have at most.
        parallelism: how many places for tasks there should be per waiting task, from 0 to 1.
        launcher: what wraps the workers' command.
        python: the Python in the image that starts the script.
        status_polling_interval: seconds between two looks at the sessions; a look is one list,
            however many there are.
        grace: seconds that ending what is left may take.

    Raises:
        InvalidRequest: a session cannot be like that; nothing was sent.
        ConfigurationError: *session* is no `Session`, the numbers of blocks do not fit together, or
            of a session of its own, that there is no login.

    Attributes:
        resources: the job's name for each session that was launched, by its id.
    """

    def __init__(
        self,
        image: str,
        session: Session | None = None,
        *,
        cores: float | None = None,
        ram: int | None = None,
        gpu: int | None = None,
        env: Mapping[str, str] | None = None,
        worker_init: str = "",
        init_blocks: int = 1,
        min_blocks: int = 0,
        max_blocks: int = 1,
        parallelism: float = 1.0,
        launcher: Launcher = _SIMPLE,
        python: str = "python3",
        status_polling_interval: int = 15,
        grace: float = 30.0,
    ) -> None:
        super().__init__()
        check_blocks(init_blocks, min_blocks, max_blocks, parallelism)
        if not grace > 0:
            raise ConfigurationError(f"grace is a number of seconds above 0, not {grace!r}")

        self._spec = SessionSpec(
            "parsl",
            image,
            cores=cores,
            ram=ram,
            gpus=gpu,
            cmd=python,
            args=("-c", BEGIN),
            env=env or {},
        )
        self.image = image
        self.nodes_per_block = 1
        self.init_blocks = init_blocks
        self.min_blocks = min_blocks
        self.max_blocks = max_blocks
        self.parallelism = parallelism
        self.launcher = launcher
        self.worker_init = worker_init
        self.cores_per_node: int | None = None if cores is None else int(cores)
        self.mem_per_node: int | None = ram
        self.script_dir: str | None = None
        self.resources: dict[object, Any] = {}
        self._interval = status_polling_interval
        self._grace = grace
        self._ended: dict[object, tuple[JobState, str]] = {}
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._session = _checked(session)
        self._is_own = session is None
        self._scope: SyncScope | None = None
        self._has_ended = False

    def __enter__(self) -> Self:
        self._opened()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._lock:
            self._has_ended = True
        self._stack.__exit__(kind, error, traceback)

    def close(self) -> None:
        """End all blocks, and make sure; closing again does nothing.

        Raises:
            ScopeError: something may be left, which it names.
        """
        self.__exit__(None, None, None)

    def __repr__(self) -> str:
        count = len(self.resources.keys() - self._ended.keys())
        return f"<SkahaProvider {self.image}: {count} of at most {self.max_blocks} blocks>"

    @property
    def error(self) -> ScopeError | None:
        """After the end, what may be left; None if nothing."""
        return None if self._scope is None else self._scope.error

    # --- what Parsl calls ------------------------------------------------------------------------

    @property
    def label(self) -> str:
        """What logs call this provider."""
        return "skaha"

    @property
    def status_polling_interval(self) -> int:
        """Seconds between two calls of `status`."""
        return self._interval

    def submit(self, command: str, tasks_per_node: int, job_name: str = "parsl.auto") -> str:
        """Launch a block.

        Args:
            command: what it runs, as a shell takes it.
            tasks_per_node: how many times; more than once needs a *launcher* that knows how.
            job_name: what the session's name is made of.

        Returns:
            The session's id.

        Raises:
            SubmitException: it was not launched, or no answer told so. What there may be of it all
                the same is ended with the provider.
        """
        try:
            spec = self._block(command, tasks_per_node, job_name)
            [outcome] = self._opened().create(spec)
        except KaledenError as error:
            raise _not_launched(job_name, error) from error

        if isinstance(outcome, Failure):
            raise _not_launched(job_name, outcome)

        self.resources[outcome.value] = job_name
        return outcome.value

    def status(self, job_ids: Sequence[object]) -> list[JobStatus]:
        """Tell how blocks stand, by one list.

        What has ended is remembered, since the server forgets it after an hour. The message of a
        block that failed has the end of its log.

        Args:
            job_ids: what `submit` returned.

        Returns:
            A status for each. ``MISSING`` is what is not on the server any more, without having
            been seen to end; or what this provider has not launched.

        Raises:
            ExecutionProviderException: the server could not be asked.
        """
        listed: dict[object, SessionInfo] = {}
        if any(map(self._is_open, job_ids)):
            try:
                listed = {info.id: info for info in self._session.fetch(SessionKind.HEADLESS)}
            except KaledenError as error:
                raise ExecutionProviderException(str(error)) from error
            self._note_ends([info for info in listed.values() if self._is_open(info.id)])

        return [self._judged(key, listed) for key in job_ids]

    def cancel(self, job_ids: Sequence[object]) -> list[bool]:
        """End blocks, and make sure by one list.

        Args:
            job_ids: what `submit` returned.

        Returns:
            Whether each is gone. What this provider has not launched is not touched.

        Raises:
            ExecutionProviderException: the server could not be asked.
        """
        alive = [str(key) for key in job_ids if self._is_open(key)]
        if alive:
            try:
                gone = self._session.destroy(alive).successes
            except KaledenError as error:
                raise ExecutionProviderException(str(error)) from error
            self._forget(gone)

        return [self._is_gone(key) for key in job_ids]

    # --- inside ----------------------------------------------------------------------------------

    def _opened(self) -> SyncScope:
        """Open the scope, unless it is open."""
        with self._lock:
            if self._has_ended:
                raise ScopeClosed("this provider was closed: make another one")

            if self._scope is None:
                with ExitStack() as stack:
                    if self._is_own:
                        stack.enter_context(self._session)
                    self._scope = stack.enter_context(self._session.scope(grace=self._grace))
                    self._stack = stack.pop_all()
            return self._scope

    def _block(self, command: str, tasks: int, job_name: str) -> SessionSpec:
        """Tell what to launch for one block."""
        if tasks != 1 and isinstance(self.launcher, SimpleLauncher):
            raise InvalidRequest(
                f"to run the command {tasks} times on a node takes a launcher that knows how: "
                "give the provider launcher=SingleNodeLauncher()"
            )

        script = f"{self.worker_init}\n{self.launcher(command, tasks, self.nodes_per_block)}"
        env = {**_told(self._spec), **self._spec.env, VARIABLE: encode_script(script.strip())}
        return evolve(self._spec, name=to_session_name(job_name), env=env)

    def _is_open(self, key: object) -> bool:
        """Whether only the server knows how a block stands."""
        return key in self.resources and key not in self._ended and not self._has_ended

    def _is_gone(self, key: object) -> bool:
        if self._has_ended and key in self.resources:
            return key not in self._survivors
        return key in self._ended

    @property
    def _survivors(self) -> tuple[str, ...]:
        return () if self.error is None else self.error.survivors

    def _judged(self, key: object, listed: Mapping[object, SessionInfo]) -> JobStatus:
        if key not in self.resources:
            return JobStatus(JobState.MISSING, f"this provider has launched no session {key}")

        if key in self._ended:
            return JobStatus(*self._ended[key])

        if self._has_ended:
            return JobStatus(JobState.CANCELLED if self._is_gone(key) else JobState.UNKNOWN)

        if key in listed:
            return JobStatus(_state(listed[key]))

        why = f"session {key} is not on the server any more, and was not seen to end"
        return JobStatus(JobState.MISSING, why)

    def _note_ends(self, infos: Sequence[SessionInfo]) -> None:
        """Remember what has ended, and of what failed, why."""
        ended = {info.id: _state(info) for info in infos if info.status.is_terminal}
        logs = self._logs([key for key, state in ended.items() if state is JobState.FAILED])
        for key, state in ended.items():
            log = f", and wrote at its end:\n{logs[key][-_TAIL:]}" if logs.get(key) else ""
            self._ended[key] = state, f"session {key} has ended as {state.name}{log}"

    def _logs(self, keys: Sequence[str]) -> Mapping[str, str]:
        try:
            return self._session.logs(keys).successes if keys else {}
        except KaledenError:
            return {}

    def _forget(self, gone: Iterable[str]) -> None:
        """Let the scope not end again what is gone."""
        for key in gone:
            self._ended[key] = JobState.CANCELLED, f"session {key} was cancelled"
        with suppress(ScopeClosed):
            self._opened().release(gone)


def _state(info: SessionInfo) -> JobState:
    return _STATES.get(info.status, JobState.UNKNOWN)


def _not_launched(job_name: str, why: object) -> SubmitException:
    return SubmitException(job_name, str(why))  # type: ignore[no-untyped-call,unused-ignore]


def _told(spec: SessionSpec) -> dict[str, str]:
    """What Parsl's workers take for the size of their node."""
    told = {"PARSL_CORES": spec.cores and int(spec.cores), "PARSL_MEMORY_GB": spec.ram}
    return {name: str(value) for name, value in told.items() if value is not None}


def _checked(session: object) -> Session:
    if session is None:
        return Session()

    if not isinstance(session, Session):
        raise ConfigurationError(f"session is a kaleden.Session, not {type(session).__name__}")

    return session


_publish(__name__, __all__, globals())
