"""``kaleden run``: sessions launched, shown until they have ended, and cleaned up."""

from __future__ import annotations

import argparse
import math
from typing import Any, Final, final

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream

from kaleden._cli._client import open_session, perform
from kaleden._cli._commands._logs import Lines
from kaleden._cli._io import DONE, NOT_ALL, Output, ReaderGone
from kaleden._client._session import AsyncSession
from kaleden._engine._tasks import open_task_group
from kaleden._errors import FailureKind, InvalidRequest
from kaleden._results._batch import Failure, Outcome, Outcomes
from kaleden._results._progress import ProgressUpdate
from kaleden._sessions._scope import OnExit, Scope
from kaleden._wire import SessionInfo, SessionSpec, SessionStatus, get_converter

_EXPLAINED: Final = 20
"""Failed sessions whose events are asked for, one after the other."""


def main(options: argparse.Namespace, output: Output) -> int:
    """Launch sessions, and see them to their ends."""
    spec = _read_spec(options)
    if options.detach and options.ledger is not None:
        msg = "a ledger is for sessions that should have ended: leave out --ledger or --detach"
        raise InvalidRequest(msg)

    session = open_session(options, ledger=options.ledger)
    if options.detach:
        launch = _Launch(spec, output)
        return perform(session, launch, options, output)

    run = _Run(spec, options, output)
    status = NOT_ALL
    try:
        status = perform(session, run, options, output)
    except* ReaderGone:
        if not run.may_have_left:
            raise
    return run.checked(status)


def _read_spec(options: argparse.Namespace) -> SessionSpec:
    env = dict(options.env)
    if len(env) < len(options.env):
        raise InvalidRequest("-e names a variable twice: give each once")

    program: list[str] = options.program
    return SessionSpec(
        options.name,
        options.image,
        kind=options.kind,
        cores=options.cores,
        ram=options.ram,
        gpus=options.gpu,
        cmd=program[0] if program else None,
        args=program[1:],
        env=env,
        replicas=options.replicas,
    )


@final
class _Launch:
    """Launches that stay: ``run --detach``."""

    def __init__(self, spec: SessionSpec, output: Output) -> None:
        self._spec = spec
        self._output = output

    async def __call__(self, session: AsyncSession) -> int:
        created = await session.create(self._spec)
        if self._output.json:
            await self._output.send_line(created.to_json())
        else:
            for key in created.successes.values():
                await self._output.send_line(key)
            for failure in created.failures.values():
                await self._output.send_note(f"not launched: {failure}")
        return DONE if created.ok else NOT_ALL


@final
class _Run:
    """One batch, from its launch to its clean-up."""

    def __init__(self, spec: SessionSpec, options: argparse.Namespace, output: Output) -> None:
        self._spec = spec
        self._options = options
        self._output = output
        self._names: dict[str, str] = {}
        self._failed = self._succeeded = 0
        self._lines: Lines | None = None
        self._scope: Scope | None = None

    async def __call__(self, session: AsyncSession) -> int:
        end: OnExit = "release" if self._options.release else "destroy"
        async with session.scope(grace=self._options.grace, on_success=end) as self._scope:
            created = await self._scope.create(self._spec)
            await self._note_launches(created)
            if self._names:
                await self._watch(session)

        return await self._sum_up()

    @property
    def may_have_left(self) -> bool:
        """Whether its clean-up could not end everything."""
        return self._scope is not None and self._scope.error is not None

    def checked(self, status: int) -> int:
        """Tell what a status is worth that came of an interruption."""
        if status in (DONE, NOT_ALL):
            return status

        if self.may_have_left:
            assert self._scope is not None  # noqa: S101  # else nothing could be left
            self._output.note(f"kaleden: {self._scope.error}")
            return NOT_ALL

        self._output.note("all sessions of this run have ended")
        return status

    async def _watch(self, session: AsyncSession) -> None:
        """Show states and logs until all sessions have ended."""
        send, receive = anyio.create_memory_object_stream[ProgressUpdate](math.inf)
        with send, receive:
            async with open_task_group() as group:
                group.start_soon(self._show_states, receive)
                if self._options.logs:
                    self._lines = Lines(self._output, self._names, FailureKind.VANISHED)
                    group.start_soon(self._lines.follow, session, list(self._names))
                waiting = session.stream.wait(list(self._names), progress=send.send_nowait)
                async with waiting as ended:
                    async for outcome in ended:
                        await self._note_end(session, outcome)
                send.close()

    async def _show_states(self, receive: MemoryObjectReceiveStream[ProgressUpdate]) -> None:
        async for counts in receive:
            told = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
            facts = {"counts": {str(status): count for status, count in counts.items()}}
            await self._tell("states", facts, told)

    async def _note_launches(self, created: Outcomes[str]) -> None:
        for name, key in created.successes.items():
            self._names[key] = name
            await self._tell("launched", {"name": name, "id": key}, f"{name}: launched as {key}")
        for name, failure in created.failures.items():
            self._failed += 1
            facts = {"name": name, "failure": get_converter().unstructure(failure)}
            await self._tell("not_launched", facts, f"not launched: {failure}")

    async def _note_end(self, session: AsyncSession, outcome: Outcome[SessionInfo]) -> None:
        name = self._names[outcome.key]
        if isinstance(outcome, Failure):
            self._failed += 1
            facts = {"ok": False, "failure": get_converter().unstructure(outcome)}
            await self._tell_end(name, outcome.key, facts, outcome.message)
            return

        status = outcome.value.status
        ok = status.matches(SessionStatus.COMPLETED)
        reason = None if ok else await self._reason(session, outcome.key)
        self._succeeded += ok
        self._failed += not ok
        facts = {"ok": ok, "status": str(status), "reason": reason}
        await self._tell_end(name, outcome.key, facts, ": ".join(filter(None, [status, reason])))

    async def _reason(self, session: AsyncSession, key: str) -> str | None:
        """Ask what the platform has to say of a session that failed, unless too many have."""
        if self._failed >= _EXPLAINED:
            return None

        told = (await session.events(key))[key]
        if isinstance(told, Failure):
            return None

        warnings = [event.message for event in told.value if event.type != "Normal"]
        return warnings[-1] if warnings else None

    async def _tell_end(self, name: str, key: str, facts: dict[str, Any], told: str) -> None:
        await self._tell("ended", {"name": name, "id": key, **facts}, f"{name}: {told}")

    async def _sum_up(self) -> int:
        unread = 0 if self._lines is None else self._lines.failed
        status = NOT_ALL if self._failed or unread else DONE
        kept = self._options.release and self._names
        left = "the sessions are left" if kept else "nothing is left"
        told = f"{self._succeeded} of {self._spec.replicas} succeeded; {left}"
        facts = {"succeeded": self._succeeded, "failed": self._failed, "exit_status": status}
        await self._tell("end", facts, told)
        return status

    async def _tell(self, event: str, facts: dict[str, Any], told: str) -> None:
        """Tell programs on standard output, or people on standard error."""
        if self._output.json:
            await self._output.send_event(event, facts)
        else:
            await self._output.send_note(told)
