"""Lines of logs, as they come."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import final

from kaleden._cli._io import Output
from kaleden._client._session import AsyncSession
from kaleden._errors import FailureKind
from kaleden._results._batch import Failure
from kaleden._sessions._monitor._follow import LogItem, LogLine, LogReset
from kaleden._wire import converter


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
                await self._take([first, *stream.at_hand()])

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
                "log_failed", {**facts, "failure": converter().unstructure(failure)}
            )
        else:
            await self._output.send_note(f"{self._names[failure.key]}: {failure}")
