"""``kaleden logs``: print or follow the logs of sessions."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, final

from kaleden._cli._client import open_session, perform
from kaleden._cli._io import FAILURE, SUCCESS, Output
from kaleden._client._session import AsyncSession
from kaleden._errors import FailureKind, InvalidRequest
from kaleden._results._batch import Failure, Outcome, Success
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
        unread: the sessions with logs that could not be followed to their ends.
    """

    def __init__(
        self, output: Output, names: Mapping[str, str], ignored: FailureKind | None = None
    ) -> None:
        self.unread: list[str] = []
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
            if item.omitted:
                message = f"{item.omitted} bytes of its log before these lines are left out"
            await self._report("log_reset", item.id, message, omitted=item.omitted)
        elif item.kind is not self._ignored:
            self.unread.append(item.key)
            facts = get_converter().unstructure(item)
            await self._report("log_failed", item.key, str(item), failure=facts)

    async def _report(self, event: str, id_: str, message: str, **facts: Any) -> None:
        name = self._names[id_]
        if self._output.json:
            await self._output.send_event(event, {"name": name, "id": id_, **facts})
        else:
            await self._output.send_note(f"{name}: {message}")


def main(options: argparse.Namespace, output: Output) -> int:
    """Print logs."""
    ids = list(dict.fromkeys(check_id(key) for key in options.ids))
    if options.follow and options.max_bytes is not None:
        raise InvalidRequest("--max-bytes is for logs that are read once: give no --follow with it")

    work = partial(_follow if options.follow else _print, options, ids, output)
    return perform(open_session(options), work, options, output)


async def _follow(
    _: argparse.Namespace, ids: Sequence[str], output: Output, session: AsyncSession
) -> int:
    printer = LogPrinter(output, {key: key for key in ids})
    await printer.follow(session, ids)
    return FAILURE if printer.unread else SUCCESS


async def _print(
    options: argparse.Namespace, ids: Sequence[str], output: Output, session: AsyncSession
) -> int:
    outcomes = await session.logs(ids, max_bytes=options.max_bytes)
    if output.json:
        await output.send_line(outcomes.to_json())
    else:
        prefixes = len(ids) > 1
        for outcome in outcomes:
            await _show(outcome, output, prefixes=prefixes)
    return SUCCESS if outcomes.ok else FAILURE


async def _show(outcome: Outcome[str], output: Output, *, prefixes: bool) -> None:
    if isinstance(outcome, Success) and outcome.omitted:
        await output.send_note(f"{outcome.key}: {outcome.omitted} bytes before these are left out")
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
