"""The display of the demo: a live table on a terminal, plain lines otherwise."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kaleden import Failure, Outcome, Outcomes, ProgressUpdate
from kaleden._cli._demo._replica import LIMIT, Share
from kaleden._results._tables import COLOURS, find_status_tone


class StatusDisplay(Protocol):
    """Shows the states of the sessions."""

    def show(self, update: ProgressUpdate) -> None:
        """Show the number of sessions in each status while the demo waits for their ends."""
        ...


@contextmanager
def open_status_display(console: Console) -> Generator[StatusDisplay]:
    """Open a table that is redrawn in place on a terminal, or plain lines otherwise."""
    if not console.is_terminal:
        yield _PlainLines(console)
        return

    with Live(console=console, auto_refresh=False) as live:
        yield _LiveTable(live)


def print_report(outcomes: Outcomes[Share], console: Console) -> None:
    """Print the outcome of each replica, the failures, and the sum of the results."""
    console.print(repr(outcomes))
    table = Table("replica", "outcome", "primes")
    for outcome in outcomes:
        table.add_row(*_format_cells(outcome))
    console.print(table)
    for failure in outcomes.failures.values():
        console.print(Text(str(failure), "red"), soft_wrap=True)

    total = sum(share.primes for share in outcomes.values)
    shares = f"{len(outcomes.values)} of {len(outcomes)} shares"
    console.print(f"{total} primes below {LIMIT} in {shares}", style="bold", highlight=False)


def _format_cells(outcome: Outcome[Share]) -> tuple[str, Text, str]:
    if isinstance(outcome, Failure):
        return outcome.key, Text(outcome.kind, "bold red"), ""

    return outcome.key, Text("ok", "green"), str(outcome.value.primes)


class _LiveTable:
    def __init__(self, live: Live) -> None:
        self._live = live

    def show(self, update: ProgressUpdate) -> None:
        if update.operation != "wait":
            return

        table = Table("status", "sessions", "")
        for status, count in sorted(update.items()):
            colour = COLOURS[find_status_tone(status)]
            table.add_row(Text(status, colour), str(count), Text("█" * count, colour))
        self._live.update(table, refresh=True)


class _PlainLines:
    def __init__(self, console: Console) -> None:
        self._console = console

    def show(self, update: ProgressUpdate) -> None:
        if update.operation != "wait":
            return

        self._console.print(f"  {update}", highlight=False)
