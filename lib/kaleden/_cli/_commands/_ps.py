"""``kaleden ps``: the sessions that there are."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Final

from kaleden._cli._client import open_session, perform
from kaleden._cli._io import DONE, Output
from kaleden._cli._table import table
from kaleden._client._session import AsyncSession
from kaleden._wire import SessionInfo, get_converter

Columns = dict[str, Callable[[SessionInfo], str]]


def main(options: argparse.Namespace, output: Output) -> int:
    """List sessions."""
    return perform(open_session(options), partial(_list, options, output), options, output)


async def _list(options: argparse.Namespace, output: Output, session: AsyncSession) -> int:
    found = await session.fetch(options.kind, options.status, options.view)
    if output.json:
        await output.send_document([described(info) for info in found])
    elif options.quiet:
        await output.send("".join(f"{info.id}\n" for info in found))
    elif found:
        columns = _EVERYBODYS if options.view == "all" else _OWN
        rows = [[read(info) for read in columns.values()] for info in found]
        await output.send_line(table(list(columns), rows))
    else:
        await output.send_note("no sessions")
    return DONE


def described(info: SessionInfo) -> dict[str, object]:
    """Make plain data of a session, in our units and words."""
    facts: dict[str, object] = get_converter().unstructure(info)
    del facts["raw"]
    return facts


def _time(time: datetime | None) -> str:
    return "" if time is None else time.strftime("%Y-%m-%dT%H:%M:%SZ")


_OWN: Final[Columns] = {
    "ID": lambda info: info.app_id or info.id,
    "NAME": lambda info: info.name,
    "KIND": lambda info: info.kind,
    "STATUS": lambda info: info.status,
    "STARTED": lambda info: _time(info.start_time),
    "IMAGE": lambda info: info.image,
}
_EVERYBODYS: Final[Columns] = {
    "USER": lambda info: info.user,
    "KIND": lambda info: info.kind,
    "STATUS": lambda info: info.status,
    "STARTED": lambda info: _time(info.start_time),
}
