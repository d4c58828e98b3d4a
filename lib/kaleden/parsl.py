"""A Parsl execution provider that runs blocks as headless sessions.

It corresponds to Parsl's own providers, for example the one for Slurm::

    with SkahaProvider("skaha/astroml:latest", max_blocks=4) as provider:
        executor = HighThroughputExecutor(provider=provider, max_workers_per_node=1)
        with parsl.load(Config(executors=[executor])):
            ...

It needs the extra ``parsl``. ``docs/how-to/use-with-parsl.md`` has a complete program.
"""

# Where Parsl is not installed, its types are unknown, which is an error in pyright's strict mode.
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any, Final, Self, final

from attrs import evolve

from kaleden._engine._config import Limits
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
from kaleden._sessions._monitor._history import SessionHistory, SessionState
from kaleden._sync import Session, SyncScope
from kaleden._wire import SessionInfo, SessionKind, SessionSpec, SessionStatus

try:
    from parsl.jobs.states import JobState, JobStatus
    from parsl.launchers import SimpleLauncher
    from parsl.launchers.base import Launcher
    from parsl.providers.base import ExecutionProvider
    from parsl.providers.errors import ExecutionProviderException, SubmitException
except ModuleNotFoundError as _error:
    if _error.name != "parsl":
        raise
    raise ImportError("kaleden.parsl needs Parsl: pip install 'kaleden[parsl]'") from _error

__all__ = ("SkahaProvider",)

_TAIL: Final = 2000
"""Number of characters from the end of a failed block's log that its message shows."""

_SIMPLE: Final = SimpleLauncher()

_STATES: Final = {
    SessionStatus.PENDING: JobState.PENDING,
    SessionStatus.RUNNING: JobState.RUNNING,
    # The session is being deleted, so its workers no longer count as capacity.
    SessionStatus.TERMINATING: JobState.CANCELLED,
    SessionStatus.COMPLETED: JobState.COMPLETED,
    SessionStatus.SUCCEEDED: JobState.COMPLETED,
    SessionStatus.FAILED: JobState.FAILED,
    SessionStatus.ERROR: JobState.FAILED,
}


@final
class SkahaProvider(ExecutionProvider):
    """A Parsl provider that runs blocks as headless sessions, which end with the provider.

    ::

        with SkahaProvider("skaha/astroml:latest", max_blocks=4) as provider:
            executor = HighThroughputExecutor(provider=provider, max_workers_per_node=1)
            with parsl.load(Config(executors=[executor])):
                ...

    All blocks belong to one scope, which is opened with the first block. When the ``with`` block is
    left, normally or by an exception, the provider destroys all sessions that Parsl has not ended,
    and verifies this with a list. This includes launches whose response was lost. Without ``with``,
    call `close`; otherwise the provider is closed when the program ends.

    A block is one session on one node. Its image must have the same version of Parsl, and the same
    minor version of Python, as this program. The workers connect to this program, so it must be
    reachable from the sessions: see the *address* of the executor. The script of a block is not
    sent as the session's command, because the server splits that at spaces and allows neither
    quotes nor ``$``. It is sent in an environment variable, base64-encoded, and a line of Python
    runs it with ``bash``, or with ``sh`` if the image has no ``bash``.

    The provider is thread-safe.

    Args:
        image: the container image.
        session: the client that launches the sessions; it remains open. None to open a
            ``Session()`` for the provider. If it has a *ledger*, `reap` can end the sessions that a
            killed program left.
        cores: CPU cores of a block; None for flexible resources. If None, set
            ``max_workers_per_node`` of the executor, as Parsl counts the cores of the whole
            machine.
        ram: memory of a block in GiB; None for flexible resources.
        gpu: number of GPUs of a block.
        env: environment variables of the blocks.
        worker_init: shell lines to run before the workers, such as ``"source activate my-env"``.
        init_blocks: the initial number of blocks.
        min_blocks: the minimum number of blocks.
        max_blocks: the maximum number of blocks.
        parallelism: the ratio of task slots to waiting tasks that Parsl aims for, from 0 to 1.
        launcher: the Parsl launcher that wraps the workers' command.
        python: the Python in the image that starts the script.
        status_polling_interval: seconds between two polls of the sessions. A poll is one list
            request for all blocks.
        grace: seconds that the clean-up of the remaining sessions may take.

    Raises:
        InvalidRequest: a session cannot have these properties; nothing was sent.
        ConfigurationError: *session* is not a `Session`; or the numbers of blocks are
            inconsistent; or *session* is None and no credentials were found.

    Attributes:
        resources: the job name of each launched session, by session id.
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
        grace: float = 45.0,
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
        self._clock: Callable[[], float] = time.monotonic
        self._history = SessionHistory(Limits().settle)
        self._states: dict[object, SessionState] = {}
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._session = _check_session(session)
        self._is_own = session is None
        self._scope: SyncScope | None = None
        self._has_ended = False

    def __enter__(self) -> Self:
        self._open_scope()
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
        """End all blocks and verify it. Closing a second time has no effect.

        Raises:
            ScopeError: sessions may be left; the exception has their ids and names.
        """
        self.__exit__(None, None, None)

    def __repr__(self) -> str:
        count = len(self.resources.keys() - self._ended.keys())
        return f"<SkahaProvider {self.image}: {count} of at most {self.max_blocks} blocks>"

    @property
    def error(self) -> ScopeError | None:
        """The error of `close`, with the sessions that may be left; None if there was none."""
        return None if self._scope is None else self._scope.error

    # --- the interface that Parsl calls ----------------------------------------------------------

    @property
    def label(self) -> str:
        """The name of this provider in logs."""
        return "skaha"

    @property
    def status_polling_interval(self) -> int:
        """Seconds between two calls of `status`."""
        return self._interval

    def submit(self, command: str, tasks_per_node: int, job_name: str = "parsl.auto") -> str:
        """Launch a block.

        Args:
            command: the shell command to run.
            tasks_per_node: the number of times to run it; more than one requires a *launcher* that
                supports this.
            job_name: the base of the session's name.

        Returns:
            The session's id.

        Raises:
            SubmitException: the session was not launched, or the response was lost. In the second
                case the session may exist; it is ended with the provider.
        """
        try:
            spec = self._build_spec(command, tasks_per_node, job_name)
            [outcome] = self._open_scope().create(spec)
        except KaledenError as error:
            raise _make_submit_error(job_name, error) from error

        if isinstance(outcome, Failure):
            raise _make_submit_error(job_name, outcome)

        key = outcome.value
        self._history.record_created(key, self._clock())
        self._states[key] = SessionState(key, self._history)
        self.resources[key] = job_name
        return key

    def status(self, job_ids: Sequence[object]) -> list[JobStatus]:
        """Return the status of blocks, with a single list request.

        The provider stores the status of ended blocks, since the server removes them after an hour.
        The message of a failed block contains the end of its log.

        Args:
            job_ids: values that `submit` returned.

        Returns:
            A status for each. It is ``MISSING`` if lists prove that the block is gone and none has
            shown its end, or if this provider has not launched the id.

        Raises:
            ExecutionProviderException: the request failed.
        """
        if any(map(self._is_open, job_ids)):
            self._update_states()
        return [self._build_status(key) for key in job_ids]

    def cancel(self, job_ids: Sequence[object]) -> list[bool]:
        """End blocks, and verify it with a single list request.

        Args:
            job_ids: values that `submit` returned. Ids that this provider has not launched are
                ignored.

        Returns:
            Whether each block has ended.

        Raises:
            ExecutionProviderException: the request failed.
        """
        alive = [str(key) for key in job_ids if self._is_open(key)]
        if alive:
            try:
                gone = self._session.destroy(alive).successes
            except KaledenError as error:
                raise ExecutionProviderException(str(error)) from error
            self._release(gone)

        return [self._is_gone(key) for key in job_ids]

    # --- internals -------------------------------------------------------------------------------

    def _open_scope(self) -> SyncScope:
        """Return the scope; open it first if necessary."""
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

    def _build_spec(self, command: str, tasks: int, job_name: str) -> SessionSpec:
        """Build the specification of the session for one block."""
        if tasks != 1 and isinstance(self.launcher, SimpleLauncher):
            raise InvalidRequest(
                f"to run the command {tasks} times on a node, another launcher is needed: "
                "give the provider launcher=SingleNodeLauncher()"
            )

        script = f"{self.worker_init}\n{self.launcher(command, tasks, self.nodes_per_block)}"
        env = {
            **_build_node_env(self._spec),
            **self._spec.env,
            VARIABLE: encode_script(script.strip()),
        }
        return evolve(self._spec, name=to_session_name(job_name), env=env)

    def _update_states(self) -> None:
        began = self._clock()
        try:
            listed = {info.id: info for info in self._session.fetch(SessionKind.HEADLESS)}
        except KaledenError as error:
            raise ExecutionProviderException(str(error)) from error

        snapshot = self._history.record_list(began, listed, unreadable=0)
        for key in filter(self._is_open, list(self._states)):
            self._states[key].update(snapshot)
        self._record_ends([info for info in listed.values() if self._is_open(info.id)])

    def _is_open(self, key: object) -> bool:
        """Whether the status of a block must be requested from the server."""
        return key in self.resources and key not in self._ended and not self._has_ended

    def _is_gone(self, key: object) -> bool:
        if self._has_ended and key in self.resources:
            return key not in self._survivors
        return key in self._ended

    @property
    def _survivors(self) -> tuple[str, ...]:
        return () if self.error is None else self.error.survivors

    def _build_status(self, key: object) -> JobStatus:
        if key not in self.resources:
            return JobStatus(JobState.MISSING, f"this provider has launched no session {key}")

        if key in self._ended:
            return JobStatus(*self._ended[key])

        if self._has_ended:
            return JobStatus(JobState.CANCELLED if self._is_gone(key) else JobState.UNKNOWN)

        state = self._states[key]
        if not state.is_gone:
            return JobStatus(_map_status(state.status or SessionStatus.PENDING))

        reason = f"session {key} is not on the server any more, and was not seen to end"
        return JobStatus(JobState.MISSING, reason)

    def _record_ends(self, infos: Sequence[SessionInfo]) -> None:
        """Store the status of ended sessions, with the end of the log for failed ones."""
        ended = {info.id: _map_status(info.status) for info in infos if info.status.is_terminal}
        logs = self._fetch_logs([key for key, state in ended.items() if state is JobState.FAILED])
        for key, state in ended.items():
            log = f", and wrote at its end:\n{logs[key][-_TAIL:]}" if logs.get(key) else ""
            self._ended[key] = state, f"session {key} has ended as {state.name}{log}"

    def _fetch_logs(self, keys: Sequence[str]) -> Mapping[str, str]:
        try:
            return self._session.logs(keys).successes if keys else {}
        except KaledenError:
            return {}

    def _release(self, gone: Iterable[str]) -> None:
        """Mark cancelled sessions as ended, and release them from the scope."""
        for key in gone:
            self._ended[key] = JobState.CANCELLED, f"session {key} was cancelled"
        with suppress(ScopeClosed):
            self._open_scope().release(gone)


def _map_status(status: SessionStatus) -> JobState:
    return _STATES.get(status, JobState.UNKNOWN)


def _make_submit_error(job_name: str, reason: object) -> SubmitException:
    return SubmitException(job_name, str(reason))  # type: ignore[no-untyped-call,unused-ignore]


def _build_node_env(spec: SessionSpec) -> dict[str, str]:
    """Return the variables from which Parsl's workers read the size of their node."""
    sizes = {"PARSL_CORES": spec.cores and int(spec.cores), "PARSL_MEMORY_GB": spec.ram}
    return {name: str(value) for name, value in sizes.items() if value is not None}


def _check_session(session: object) -> Session:
    if session is None:
        return Session()

    if not isinstance(session, Session):
        raise ConfigurationError(f"session is a kaleden.Session, not {type(session).__name__}")

    return session


_publish(__name__, __all__, globals())
