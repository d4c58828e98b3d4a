"""``kaleden run``: launch sessions, show their states and logs, and clean up."""

from __future__ import annotations

import argparse
import math
import shlex
from functools import partial
from typing import Any, Final, final

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream

from kaleden._cli._client import open_session, perform
from kaleden._cli._commands._logs import LogPrinter
from kaleden._cli._io import FAILURE, SUCCESS, Output, ReaderGone
from kaleden._client._session import AsyncSession
from kaleden._engine._tasks import open_task_group
from kaleden._errors import FailureKind, InvalidRequest, ScopeError
from kaleden._results._batch import Failure, Outcome, Outcomes
from kaleden._results._progress import ProgressUpdate
from kaleden._sessions._monitor._outage import OUTAGE_KINDS
from kaleden._sessions._scope import OnExit, Scope
from kaleden._wire import SessionInfo, SessionSpec, SessionStatus, get_converter

_MAX_REASONS: Final = 20
"""Failed sessions for which events are fetched, one after another."""


def main(options: argparse.Namespace, output: Output) -> int:
    """Launch sessions, and wait for their ends unless --detach is given."""
    spec = _build_spec(options)
    if options.detach and options.ledger is not None:
        msg = "--ledger is for sessions that end with the run: leave out --ledger or --detach"
        raise InvalidRequest(msg)

    session = open_session(options, ledger=options.ledger)
    if options.detach:
        return perform(session, partial(_launch_detached, spec, output), options, output)

    run = _AttachedRun(spec, options, output)
    status = FAILURE
    try:
        status = perform(session, run, options, output)
    except* ReaderGone:
        if not run.may_have_survivors:
            raise
    return run.correct_status(status)


def _build_spec(options: argparse.Namespace) -> SessionSpec:
    env = dict(options.env)
    if len(env) < len(options.env):
        raise InvalidRequest("-e sets a variable twice: give each one once")

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


async def _launch_detached(spec: SessionSpec, output: Output, session: AsyncSession) -> int:
    """Launch sessions and leave them on the platform."""
    created = await session.create(spec)
    if output.json:
        await output.send_line(created.to_json())
    else:
        for key in created.successes.values():
            await output.send_line(key)
        for failure in created.failures.values():
            await output.send_note(f"not launched: {failure}")
    return SUCCESS if created.ok else FAILURE


@final
class _AttachedRun:
    """The work of ``run``: launch sessions, wait for their ends, and clean up."""

    def __init__(self, spec: SessionSpec, options: argparse.Namespace, output: Output) -> None:
        self._spec = spec
        self._options = options
        self._output = output
        self._names: dict[str, str] = {}
        self._failed = self._succeeded = 0
        self._has_outage = False
        self._released: list[str] = []
        self._logs: LogPrinter | None = None
        self._scope: Scope | None = None

    async def __call__(self, session: AsyncSession) -> int:
        end: OnExit = "release" if self._options.release else "destroy"
        try:
            async with session.scope(grace=self._options.grace, on_success=end) as self._scope:
                created = await self._scope.create(self._spec)
                await self._report_launches(created)
                if self._names:
                    await self._watch(session)
                await self._release(self._scope)
        except ScopeError as error:
            await self._report_left(error)
            raise

        return await self._report_summary()

    async def _release(self, scope: Scope) -> None:
        """Release the sessions that may still run, or that have the only copy of a log."""
        unread = self._logs.unread if self._logs and self._options.on_unread == "release" else []
        ids = scope.ids if self._has_outage else unread
        if not ids:
            return

        self._released = list(ids)
        reason = "the outage" if self._has_outage else "logs that could not be read"
        ledger = self._options.ledger if self._has_outage else None
        way = f"rm {' '.join(ids)}" if ledger is None else f"reap {shlex.quote(ledger)}"
        message = f"released because of {reason}: {', '.join(ids)}; `kaleden {way}` ends them"
        await self._report("released", {"ids": ids}, message)
        await scope.release(ids, reapable=self._has_outage)

    async def _report_left(self, error: ScopeError) -> None:
        """Write the sessions that may be left, with the reasons, for programs."""
        if self._output.json:
            failures = {
                key: get_converter().unstructure(failure) for key, failure in error.failures.items()
            }
            facts = {"ids": error.survivors, "names": error.launches, "failures": failures}
            await self._output.send_event("left", facts)

    @property
    def may_have_survivors(self) -> bool:
        """Whether the clean-up failed to end all sessions."""
        return self._scope is not None and self._scope.error is not None

    def correct_status(self, status: int) -> int:
        """Correct the exit status after an interruption, and report the result of the clean-up.

        Args:
            status: the status of the signal or of the closed pipe.

        Returns:
            FAILURE if sessions may be left, otherwise *status*.
        """
        if status in (SUCCESS, FAILURE):
            return status

        if self.may_have_survivors:
            assert self._scope is not None  # noqa: S101  # Implied by `may_have_survivors`.
            self._output.write_note(f"kaleden: {self._scope.error}")
            return FAILURE

        self._output.write_note("all sessions of this run have ended")
        return status

    async def _watch(self, session: AsyncSession) -> None:
        """Show states and logs until all sessions have ended."""
        send, receive = anyio.create_memory_object_stream[ProgressUpdate](math.inf)
        with send, receive:
            async with open_task_group() as group:
                group.start_soon(self._show_states, receive)
                if self._options.logs:
                    self._logs = LogPrinter(self._output, self._names, FailureKind.VANISHED)
                    group.start_soon(self._logs.follow, session, list(self._names))
                waiting = session.stream.wait(list(self._names), progress=send.send_nowait)
                async with waiting as ended:
                    async for outcome in ended:
                        await self._report_outcome(session, outcome)
                send.close()

    async def _show_states(self, receive: MemoryObjectReceiveStream[ProgressUpdate]) -> None:
        async for counts in receive:
            facts = {"counts": {str(status): count for status, count in counts.items()}}
            await self._report("states", facts, str(counts))

    async def _report_launches(self, created: Outcomes[str]) -> None:
        for name, key in created.successes.items():
            self._names[key] = name
            await self._report("launched", {"name": name, "id": key}, f"{name}: launched as {key}")
        for name, failure in created.failures.items():
            self._failed += 1
            facts = {"name": name, "failure": get_converter().unstructure(failure)}
            await self._report("not_launched", facts, f"not launched: {failure}")

    async def _report_outcome(self, session: AsyncSession, outcome: Outcome[SessionInfo]) -> None:
        name = self._names[outcome.key]
        if isinstance(outcome, Failure):
            self._failed += 1
            self._has_outage = self._has_outage or outcome.kind in OUTAGE_KINDS
            facts = {"ok": False, "failure": get_converter().unstructure(outcome)}
            await self._report_end(name, outcome.key, facts, outcome.message)
            return

        status = outcome.value.status
        ok = status.matches(SessionStatus.COMPLETED)
        reason = None if ok else await self._fetch_reason(session, outcome.key)
        self._succeeded += ok
        self._failed += not ok
        facts = {"ok": ok, "status": str(status), "reason": reason}
        await self._report_end(name, outcome.key, facts, ": ".join(filter(None, [status, reason])))

    async def _fetch_reason(self, session: AsyncSession, key: str) -> str | None:
        """Return the last warning among the events of a failed session.

        Returns:
            None if there is none, or if too many sessions have failed already.
        """
        if self._failed >= _MAX_REASONS:
            return None

        events = (await session.events(key))[key]
        if isinstance(events, Failure):
            return None

        warnings = [event.message for event in events.value if event.type != "Normal"]
        return warnings[-1] if warnings else None

    async def _report_end(self, name: str, key: str, facts: dict[str, Any], message: str) -> None:
        await self._report("ended", {"name": name, "id": key, **facts}, f"{name}: {message}")

    async def _report_summary(self) -> int:
        has_unread = self._logs is not None and self._logs.unread
        status = FAILURE if self._failed or has_unread else SUCCESS
        left = "all sessions have ended"
        if self._released:
            left = f"{len(self._released)} sessions were released"
        elif self._options.release and self._names:
            left = "the sessions were released"
        message = f"{self._succeeded} of {self._spec.replicas} succeeded; {left}"
        facts = {"succeeded": self._succeeded, "failed": self._failed, "exit_status": status}
        await self._report("end", facts, message)
        return status

    async def _report(self, event: str, facts: dict[str, Any], message: str) -> None:
        """Write an event to standard output with --json, otherwise a message to standard error."""
        if self._output.json:
            await self._output.send_event(event, facts)
        else:
            await self._output.send_note(message)
