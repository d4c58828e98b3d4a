"""``kaleden reap``: what killed processes left, ended."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from functools import partial
from typing import Any

from kaleden._cli._client import open_session, perform
from kaleden._cli._io import DONE, NOT_ALL, Output
from kaleden._client._session import AsyncSession
from kaleden._engine._config import Limits
from kaleden._results._batch import Failure
from kaleden._sessions._ledger._file import OpenLaunch
from kaleden._sessions._reap import Survey, compute_time_left, survey


def main(options: argparse.Namespace, output: Output) -> int:
    """End what is left."""
    limits = Limits(create_timeout=options.create_timeout, settle=options.settle)
    session = open_session(options, create_timeout=limits.create_timeout, settle=limits.settle)
    found = survey(options.path, session.describe().url or "")
    launches = found.dead + (found.unknown if options.elsewhere else [])
    if not output.json:
        _tell_survey(found, launches, output)
    if not launches or options.dry_run:
        if output.json:
            output.document({**_facts(found, launches), "outcomes": []})
        return NOT_ALL if launches else DONE

    _tell_wait(launches, limits, output)
    work = partial(_reap, options, output, _facts(found, launches))
    return perform(session, work, options, output)


async def _reap(
    options: argparse.Namespace, output: Output, facts: dict[str, Any], session: AsyncSession
) -> int:
    outcomes = await session.reap(options.path, elsewhere=options.elsewhere)
    if output.json:
        await output.send_document(
            {**facts, "outcomes": json.loads(outcomes.to_json())["outcomes"]}
        )
    else:
        for outcome in outcomes:
            failed = isinstance(outcome, Failure)
            await output.send_line(f"failed: {outcome}" if failed else f"ended: {outcome.key}")
    return DONE if outcomes.ok else NOT_ALL


def _facts(found: Survey, launches: Sequence[OpenLaunch]) -> dict[str, Any]:
    elsewhere = [launch for launch in found.unknown if launch not in launches]
    return {
        "operation": "reap",
        "left": [
            {
                "name": launch.name,
                "id": launch.session_id,
                "process": launch.owner.pid,
                "host": launch.owner.host,
            }
            for launch in launches
        ],
        "passed_over": {
            "alive": len(found.alive),
            "elsewhere": len(elsewhere),
            "servers": _servers(found),
        },
    }


def _servers(found: Survey) -> list[str]:
    return sorted({launch.server for launch in found.other_servers})


def _tell_survey(found: Survey, launches: Sequence[OpenLaunch], output: Output) -> None:
    """Tell what is open, and what of it is passed over and why."""
    for launch in launches:
        session = launch.session_id or "no id known"
        by = f"by process {launch.owner.pid} of {launch.owner.host}"
        output.line(f"left: {launch.name} ({session}), {by}")
    if not launches:
        output.line("nothing is left that is to be ended")
    if found.alive:
        output.line(f"passed over: {len(found.alive)} launches of processes that live")
    if found.unknown and found.unknown[0] not in launches:
        count = len(found.unknown)
        output.line(f"passed over: {count} of other machines or containers (--elsewhere)")
    for server in _servers(found):
        output.line(f"passed over: what was launched on {server}")


def _tell_wait(launches: Sequence[OpenLaunch], limits: Limits, output: Output) -> None:
    waits = [compute_time_left(launch, limits) for launch in launches if launch.session_id is None]
    if waits and max(waits) > 1:
        told = f"{len(waits)} may yet appear: looking for them for up to {max(waits):.0f} seconds"
        (output.note if output.json else output.line)(told)
