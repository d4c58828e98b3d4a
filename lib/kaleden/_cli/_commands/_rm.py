"""``kaleden rm``: sessions ended, and made sure of."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from kaleden._cli._client import by_id, names_apart, open_session, perform
from kaleden._cli._io import DONE, NOT_ALL, Output
from kaleden._client._session import AsyncSession
from kaleden._errors import InvalidRequest
from kaleden._results._batch import Failure, Outcomes
from kaleden._sessions._launch._destroy import build_filter
from kaleden._wire import SessionInfo, check_id, check_kind


def main(options: argparse.Namespace, output: Output) -> int:
    """End sessions."""
    _check(options)
    work = _remove_named if options.prefix is None else _remove_alike
    return perform(open_session(options), partial(work, options, output), options, output)


def _check(options: argparse.Namespace) -> None:
    """Refuse what cannot be meant, before anything is sent."""
    if (options.prefix is None) == (not options.ids):
        raise InvalidRequest("rm takes ids, or --prefix: one of the two")

    if options.prefix is None:
        if options.kind or options.status or options.dry_run:
            raise InvalidRequest("--kind, --status and --dry-run go with --prefix")
        for key in options.ids:
            check_id(key)
        return

    build_filter(options.prefix, options.status)
    if options.kind is not None:
        check_kind(options.kind)


async def _remove_named(options: argparse.Namespace, output: Output, session: AsyncSession) -> int:
    listed = by_id(await session.fetch())
    # The server says yes to every delete, so a name would look as if it had ended.
    names = names_apart(options.ids, listed, "rm")
    ids = [key for key in options.ids if key not in names]
    outcomes = await session.destroy(ids)
    return await _tell([*names.values(), *outcomes], listed, output)


async def _remove_alike(options: argparse.Namespace, output: Output, session: AsyncSession) -> int:
    is_chosen = build_filter(options.prefix, options.status)
    chosen = by_id(info for info in await session.fetch(options.kind) if is_chosen(info))
    if options.dry_run:
        return await _tell_plan(chosen, output)

    if not chosen and not output.json:
        await output.send_note(f"no session's name begins with {options.prefix}")
    return await _tell(list(await session.destroy(chosen)), chosen, output)


async def _tell_plan(chosen: dict[str, SessionInfo], output: Output) -> int:
    if output.json:
        await output.send_document({"would_end": list(chosen)})
    else:
        for info in chosen.values():
            await output.send_line(f"would end: {_named(info.id, chosen)}")
    return DONE


async def _tell(found: list[Any], listed: dict[str, SessionInfo], output: Output) -> int:
    outcomes: Outcomes[bool] = Outcomes("destroy", found)
    if output.json:
        await output.send_line(outcomes.to_json())
    else:
        for outcome in outcomes:
            if isinstance(outcome, Failure):
                await output.send_note(f"may be left: {outcome}")
            else:
                await output.send_line(f"gone: {_named(outcome.key, listed)}")
    return DONE if outcomes.ok else NOT_ALL


def _named(key: str, listed: dict[str, SessionInfo]) -> str:
    info = listed.get(key)
    return f"{key} (it was not there)" if info is None else f"{key} ({info.name})"
