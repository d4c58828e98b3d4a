"""``kaleden ps``: list sessions."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Final

from kaleden._cli._client import open_session, perform
from kaleden._cli._io import SUCCESS, Output
from kaleden._cli._table import format_table
from kaleden._client._session import AsyncSession
from kaleden._wire import SessionInfo, get_converter

Columns = dict[str, Callable[[SessionInfo], str]]


def main(options: argparse.Namespace, output: Output) -> int:
    """List sessions."""
    return perform(open_session(options), partial(_list, options, output), options, output)


async def _list(options: argparse.Namespace, output: Output, session: AsyncSession) -> int:
    found = await session.fetch(options.kind, options.status, options.view)
    if output.json:
        facts = [get_converter().unstructure(info) for info in found]
        for each in facts:
            del each["raw"]
        await output.send_document(facts)
    elif options.quiet:
        await output.send("".join(f"{info.id}\n" for info in found))
    elif found:
        columns = _ALL_COLUMNS if options.view == "all" else _OWN_COLUMNS
        rows = [[read(info) for read in columns.values()] for info in found]
        await output.send_line(format_table(list(columns), rows))
    else:
        await output.send_note("no sessions")
    return SUCCESS


def _format_time(time: datetime | None) -> str:
    return "" if time is None else time.strftime("%Y-%m-%dT%H:%M:%SZ")


_OWN_COLUMNS: Final[Columns] = {
    "ID": lambda info: info.app_id or info.id,
    "NAME": lambda info: info.name,
    "KIND": lambda info: info.kind,
    "STATUS": lambda info: info.status,
    "STARTED": lambda info: _format_time(info.start_time),
    "IMAGE": lambda info: info.image,
}
_ALL_COLUMNS: Final[Columns] = {
    "USER": lambda info: info.user,
    "KIND": lambda info: info.kind,
    "STATUS": lambda info: info.status,
    "STARTED": lambda info: _format_time(info.start_time),
}
