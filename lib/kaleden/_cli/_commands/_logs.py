"""``kaleden logs``: what sessions have written, or write."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import final

from attrs import evolve

from kaleden._cli._client import by_id, names_apart, open_session, perform
from kaleden._cli._io import DONE, NOT_ALL, Output
from kaleden._client._session import AsyncSession
from kaleden._errors import FailureKind
from kaleden._results._batch import Failure, Outcome, Outcomes
from kaleden._sessions._monitor._follow import LogItem, LogLine, LogReset
from kaleden._wire import check_id, get_converter


@final
class Lines:
    """Follows logs, and writes their lines.

    Args:
        output: where to.
        names: what to call each session by; with more than one, before each line of it.
        quiet: a kind of failure that others tell of.

    Attributes:
        failed: how many logs could not be followed to their ends.
    """

    def __init__(
        self, output: Output, names: Mapping[str, str], quiet: FailureKind | None = None
    ) -> None:
        self.failed = 0
        self._output = output
        self._names = names
        self._quiet = quiet

    async def follow(self, session: AsyncSession, ids: Sequence[str]) -> None:
        """Follow the logs of *ids* until their sessions have ended."""
        async with session.follow(ids) as stream:
            async for first in stream:
                # What is there already goes out in one piece.
                await self._take([first, *stream.receive_nowait()])

    async def _take(self, items: list[LogItem]) -> None:
        lines: list[str] = []
        for item in items:
            if isinstance(item, LogLine):
                lines.append(self._line(item))
                continue

            await self._output.send("".join(lines))
            lines.clear()
            await self._take_other(item)
        await self._output.send("".join(lines))

    def _line(self, item: LogLine) -> str:
        name = self._names[item.id]
        if self._output.json:
            facts = {"event": "log", "name": name, "id": item.id, "text": item.text}
            return f"{json.dumps(facts)}\n"

        return f"{name} | {item.text}\n" if len(self._names) > 1 else f"{item.text}\n"

    async def _take_other(self, item: LogReset | Failure) -> None:
        if isinstance(item, Failure):
            if item.kind is not self._quiet:
                await self.fail(item)
        elif self._output.json:
            facts = {"name": self._names[item.id], "id": item.id}
            await self._output.send_event("log_reset", facts)
        else:
            name = self._names[item.id]
            await self._output.send_note(f"{name}: its log begins anew")

    async def fail(self, failure: Failure) -> None:
        """Tell that a log cannot be followed to its end."""
        self.failed += 1
        if self._output.json:
            facts = {"name": self._names[failure.key], "id": failure.key}
            await self._output.send_event(
                "log_failed", {**facts, "failure": get_converter().unstructure(failure)}
            )
        else:
            await self._output.send_note(f"{self._names[failure.key]}: {failure}")


def main(options: argparse.Namespace, output: Output) -> int:
    """Print logs."""
    ids = list(dict.fromkeys(check_id(key) for key in options.ids))
    work = _follow if options.follow else _print
    return perform(open_session(options), partial(work, ids, output), options, output)


async def _follow(ids: Sequence[str], output: Output, session: AsyncSession) -> int:
    names = names_apart(ids, by_id(await session.fetch()), "logs")
    lines = Lines(output, {key: key for key in ids})
    for failure in names.values():
        await lines.fail(failure)
    await lines.follow(session, [key for key in ids if key not in names])
    return NOT_ALL if lines.failed else DONE


async def _print(ids: Sequence[str], output: Output, session: AsyncSession) -> int:
    outcomes = Outcomes("logs", await _judged(session, await session.logs(ids)))
    if output.json:
        await output.send_line(outcomes.to_json())
    else:
        prefixes = len(ids) > 1
        for outcome in outcomes:
            await _show(outcome, output, prefixes=prefixes)
    return DONE if outcomes.ok else NOT_ALL


async def _judged(session: AsyncSession, outcomes: Outcomes[str]) -> list[Outcome[str]]:
    """Tell empty logs from those of sessions that are not there: the server answers both alike."""
    empty = [key for key, log in outcomes.successes.items() if not log]
    if not empty:
        return list(outcomes)

    listed = by_id(await session.fetch())
    names = names_apart(empty, listed, "logs")
    unknown = Failure("", FailureKind.NOT_FOUND, "no session of yours has this id", sent=True)
    wrong = {key: names.get(key) or evolve(unknown, key=key) for key in empty if key not in listed}
    return [wrong.get(outcome.key, outcome) for outcome in outcomes]


async def _show(outcome: Outcome[str], output: Output, *, prefixes: bool) -> None:
    if isinstance(outcome, Failure):
        await output.send_note(str(outcome))
    elif not outcome.value:
        await output.send_note(f"{outcome.key}: nothing was written yet")
    elif prefixes:
        lines = outcome.value.removesuffix("\n").split("\n")
        await output.send("".join(f"{outcome.key} | {line}\n" for line in lines))
    else:
        end = "" if outcome.value.endswith("\n") else "\n"
        await output.send(f"{outcome.value}{end}")
