"""``kaleden logs``: print or follow the logs of sessions."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, final

from attrs import evolve

from kaleden._cli._client import index_by_id, open_session, perform, reject_names
from kaleden._cli._io import FAILURE, SUCCESS, Output
from kaleden._client._session import AsyncSession
from kaleden._errors import FailureKind
from kaleden._results._batch import Failure, Outcome, Outcomes
from kaleden._sessions._monitor._follow import LogItem, LogLine, LogReset
from kaleden._wire import check_id, get_converter


@final
class LogPrinter:
    """Follows logs, and writes their lines.

    Args:
        output: writes the lines.
        names: the name to print for each id; with several ids, a prefix of each line.
        ignored: a kind of failure that the caller reports itself.

    Attributes:
        failed: the number of logs that could not be followed to their ends.
    """

    def __init__(
        self, output: Output, names: Mapping[str, str], ignored: FailureKind | None = None
    ) -> None:
        self.failed = 0
        self._output = output
        self._names = names
        self._ignored = ignored

    async def follow(self, session: AsyncSession, ids: Sequence[str]) -> None:
        """Follow the logs of *ids* until their sessions have ended."""
        async with session.follow(ids) as stream:
            async for first in stream:
                # Lines that have arrived already are written together.
                await self._write([first, *stream.receive_nowait()])

    async def _write(self, items: list[LogItem]) -> None:
        lines: list[str] = []
        for item in items:
            if isinstance(item, LogLine):
                lines.append(self._format_line(item))
                continue

            await self._output.send("".join(lines))
            lines.clear()
            await self._write_other(item)
        await self._output.send("".join(lines))

    def _format_line(self, item: LogLine) -> str:
        name = self._names[item.id]
        if self._output.json:
            facts = {"event": "log", "name": name, "id": item.id, "text": item.text}
            return f"{json.dumps(facts)}\n"

        return f"{name} | {item.text}\n" if len(self._names) > 1 else f"{item.text}\n"

    async def _write_other(self, item: LogReset | Failure) -> None:
        if isinstance(item, LogReset):
            message = "its log starts again from the beginning"
            await self._report("log_reset", item.id, message)
        elif item.kind is not self._ignored:
            await self.report_failure(item)

    async def report_failure(self, failure: Failure) -> None:
        """Report that a log cannot be followed to its end."""
        self.failed += 1
        facts = get_converter().unstructure(failure)
        await self._report("log_failed", failure.key, str(failure), failure=facts)

    async def _report(self, event: str, id_: str, message: str, **facts: Any) -> None:
        name = self._names[id_]
        if self._output.json:
            await self._output.send_event(event, {"name": name, "id": id_, **facts})
        else:
            await self._output.send_note(f"{name}: {message}")


def main(options: argparse.Namespace, output: Output) -> int:
    """Print logs."""
    ids = list(dict.fromkeys(check_id(key) for key in options.ids))
    work = _follow if options.follow else _print
    return perform(open_session(options), partial(work, ids, output), options, output)


async def _follow(ids: Sequence[str], output: Output, session: AsyncSession) -> int:
    rejected = reject_names(ids, index_by_id(await session.fetch()), "logs")
    printer = LogPrinter(output, {key: key for key in ids})
    for failure in rejected.values():
        await printer.report_failure(failure)
    await printer.follow(session, [key for key in ids if key not in rejected])
    return FAILURE if printer.failed else SUCCESS


async def _print(ids: Sequence[str], output: Output, session: AsyncSession) -> int:
    outcomes = Outcomes("logs", await _detect_unknown(session, await session.logs(ids)))
    if output.json:
        await output.send_line(outcomes.to_json())
    else:
        prefixes = len(ids) > 1
        for outcome in outcomes:
            await _show(outcome, output, prefixes=prefixes)
    return SUCCESS if outcomes.ok else FAILURE


async def _detect_unknown(session: AsyncSession, outcomes: Outcomes[str]) -> list[Outcome[str]]:
    """Replace the empty logs of unknown sessions by failures.

    The server responds with an empty log for a session that does not exist.
    """
    empty = [key for key, log in outcomes.successes.items() if not log]
    if not empty:
        return list(outcomes)

    listed = index_by_id(await session.fetch())
    rejected = reject_names(empty, listed, "logs")
    unknown = Failure("", FailureKind.NOT_FOUND, "no session of yours has this id", sent=True)
    wrong = {
        key: rejected.get(key) or evolve(unknown, key=key) for key in empty if key not in listed
    }
    return [wrong.get(outcome.key, outcome) for outcome in outcomes]


async def _show(outcome: Outcome[str], output: Output, *, prefixes: bool) -> None:
    if isinstance(outcome, Failure):
        await output.send_note(str(outcome))
    elif not outcome.value:
        await output.send_note(f"{outcome.key}: nothing has been written yet")
    elif prefixes:
        lines = outcome.value.removesuffix("\n").split("\n")
        await output.send("".join(f"{outcome.key} | {line}\n" for line in lines))
    else:
        end = "" if outcome.value.endswith("\n") else "\n"
        await output.send(f"{outcome.value}{end}")
