"""``kaleden reap``: end the sessions of processes that were killed."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from functools import partial
from typing import Any

from kaleden._cli._client import open_session, perform
from kaleden._cli._io import FAILURE, SUCCESS, Output
from kaleden._client._session import AsyncSession
from kaleden._engine._config import Limits
from kaleden._results._batch import Failure
from kaleden._sessions._ledger._file import OpenLaunch
from kaleden._sessions._reap import Survey, compute_time_left, survey


def main(options: argparse.Namespace, output: Output) -> int:
    """End the sessions that are left."""
    limits = Limits(create_timeout=options.create_timeout, settle=options.settle)
    session = open_session(options, create_timeout=limits.create_timeout, settle=limits.settle)
    found = survey(options.path, session.describe().url or "")
    launches = found.dead + (found.unknown if options.elsewhere else [])
    if not output.json:
        _print_survey(found, launches, output)
    if not launches or options.dry_run:
        if output.json:
            output.write_document({**_make_report(found, launches), "outcomes": []})
        return FAILURE if launches else SUCCESS

    _print_wait(launches, limits, output)
    work = partial(_reap, options, output, _make_report(found, launches))
    return perform(session, work, options, output)


async def _reap(
    options: argparse.Namespace, output: Output, report: dict[str, Any], session: AsyncSession
) -> int:
    outcomes = await session.reap(options.path, elsewhere=options.elsewhere)
    if output.json:
        await output.send_document(
            {**report, "outcomes": json.loads(outcomes.to_json())["outcomes"]}
        )
    else:
        for outcome in outcomes:
            failed = isinstance(outcome, Failure)
            await output.send_line(f"failed: {outcome}" if failed else f"ended: {outcome.key}")
    return SUCCESS if outcomes.ok else FAILURE


def _make_report(found: Survey, launches: Sequence[OpenLaunch]) -> dict[str, Any]:
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
            "servers": _list_servers(found),
        },
    }


def _list_servers(found: Survey) -> list[str]:
    return sorted({launch.server for launch in found.other_servers})


def _print_survey(found: Survey, launches: Sequence[OpenLaunch], output: Output) -> None:
    """Print the launches to end, and those that are skipped with the reason."""
    for launch in launches:
        session = launch.session_id or "id unknown"
        by = f"by process {launch.owner.pid} of {launch.owner.host}"
        output.write_line(f"left: {launch.name} ({session}), {by}")
    if not launches:
        output.write_line("no sessions to end")
    if found.alive:
        output.write_line(f"skipped: {len(found.alive)} of processes that still run")
    if found.unknown and found.unknown[0] not in launches:
        count = len(found.unknown)
        output.write_line(f"skipped: {count} of other machines or containers (--elsewhere)")
    for server in _list_servers(found):
        output.write_line(f"skipped: sessions of {server}")


def _print_wait(launches: Sequence[OpenLaunch], limits: Limits, output: Output) -> None:
    waits = [compute_time_left(launch, limits) for launch in launches if launch.session_id is None]
    if waits and max(waits) > 1:
        message = f"{len(waits)} may still appear: waiting for up to {max(waits):.0f} seconds"
        (output.write_note if output.json else output.write_line)(message)
