"""``kaleden rm``: end sessions, and check that they are gone."""

from __future__ import annotations

import argparse
from functools import partial

from kaleden._cli._client import index_by_id, open_session, perform
from kaleden._cli._io import FAILURE, SUCCESS, Output
from kaleden._client._session import AsyncSession
from kaleden._errors import InvalidRequest
from kaleden._results._batch import Failure, Outcomes
from kaleden._sessions._launch._filter import build_filter
from kaleden._wire import SessionInfo, check_id, check_kind


def main(options: argparse.Namespace, output: Output) -> int:
    """End sessions."""
    _check_options(options)
    work = _remove_by_id if options.prefix is None else _remove_by_prefix
    return perform(open_session(options), partial(work, options, output), options, output)


def _check_options(options: argparse.Namespace) -> None:
    """Reject invalid combinations of options before a request is sent."""
    if (options.prefix is None) == (not options.ids):
        raise InvalidRequest("give ids or --prefix, and not both")

    if options.prefix is None:
        if options.kind or options.status or options.dry_run:
            raise InvalidRequest("--kind, --status and --dry-run require --prefix")
        for key in options.ids:
            check_id(key)
        return

    build_filter(options.prefix, options.status)
    if options.kind is not None:
        check_kind(options.kind)


async def _remove_by_id(options: argparse.Namespace, output: Output, session: AsyncSession) -> int:
    listed = index_by_id(await session.fetch())
    outcomes = await session.destroy(options.ids)
    status = await _print_outcomes(outcomes, listed, output)
    missing = not all(outcomes.values) and not options.ignore_missing
    return FAILURE if missing else status


async def _remove_by_prefix(
    options: argparse.Namespace, output: Output, session: AsyncSession
) -> int:
    is_chosen = build_filter(options.prefix, options.status)
    chosen = index_by_id(info for info in await session.fetch(options.kind) if is_chosen(info))
    if options.dry_run:
        return await _print_plan(chosen, output)

    if not chosen and not output.json:
        await output.send_note(f"no session's name begins with {options.prefix}")
    return await _print_outcomes(await session.destroy(chosen), chosen, output)


async def _print_plan(chosen: dict[str, SessionInfo], output: Output) -> int:
    if output.json:
        await output.send_document({"would_end": list(chosen)})
    else:
        for info in chosen.values():
            await output.send_line(f"would end: {_format_session(info.id, chosen)}")
    return SUCCESS


async def _print_outcomes(
    outcomes: Outcomes[bool], listed: dict[str, SessionInfo], output: Output
) -> int:
    if output.json:
        await output.send_line(outcomes.to_json())
    else:
        for outcome in outcomes:
            if isinstance(outcome, Failure):
                await output.send_note(f"may be left: {outcome}")
            elif outcome.value:
                await output.send_line(f"gone: {_format_session(outcome.key, listed)}")
            else:
                await output.send_note(f"{outcome.key}: the server lists no session with this id")
    return SUCCESS if outcomes.ok else FAILURE


def _format_session(key: str, listed: dict[str, SessionInfo]) -> str:
    info = listed.get(key)
    return key if info is None else f"{key} ({info.name})"
