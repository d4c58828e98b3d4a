"""``kaleden logs``: what sessions have written, or write."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

from attrs import evolve

from kaleden._cli._client import open_session, perform
from kaleden._cli._commands._lines import Lines
from kaleden._cli._io import Output
from kaleden._cli._named import by_id, names_apart
from kaleden._cli._status import DONE, NOT_ALL
from kaleden._client._session import AsyncSession
from kaleden._errors import FailureKind
from kaleden._results._batch import Failure, Outcome, Outcomes
from kaleden._wire import check_id


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
