"""What the demo shows while it waits: a live table, or plain lines where there is no terminal."""

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


class Board(Protocol):
    """Shows how the sessions stand."""

    def show(self, tally: ProgressUpdate) -> None:
        """Show how many sessions have each status; of their launch, nothing."""
        ...


@contextmanager
def open_board(console: Console) -> Generator[Board]:
    """Show a table that changes in place, if *console* is a terminal that can."""
    if not console.is_terminal:
        yield _Lines(console)
        return

    with Live(console=console, auto_refresh=False) as live:
        yield _Bars(live)


def report(outcomes: Outcomes[Share], console: Console) -> None:
    """Print what each replica found, what became of the failed ones, and the sum of the others."""
    console.print(repr(outcomes))
    table = Table("replica", "outcome", "primes")
    for outcome in outcomes:
        table.add_row(*_cells(outcome))
    console.print(table)
    for failure in outcomes.failures.values():
        console.print(Text(str(failure), "red"), soft_wrap=True)

    total = sum(share.primes for share in outcomes.values)
    shares = f"{len(outcomes.values)} of {len(outcomes)} shares"
    console.print(f"{total} primes below {LIMIT} in {shares}", style="bold", highlight=False)


def _cells(outcome: Outcome[Share]) -> tuple[str, Text, str]:
    if isinstance(outcome, Failure):
        return outcome.key, Text(outcome.kind, "bold red"), ""

    return outcome.key, Text("ok", "green"), str(outcome.value.primes)


class _Bars:
    def __init__(self, live: Live) -> None:
        self._live = live

    def show(self, tally: ProgressUpdate) -> None:
        if tally.operation != "wait":
            return

        table = Table("status", "sessions", "")
        for status, count in sorted(tally.items()):
            colour = COLOURS[find_status_tone(status)]
            table.add_row(Text(status, colour), str(count), Text("█" * count, colour))
        self._live.update(table, refresh=True)


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console

    def show(self, tally: ProgressUpdate) -> None:
        if tally.operation != "wait":
            return

        line = ", ".join(f"{count} {status}" for status, count in sorted(tally.items()))
        self._console.print(f"  {line}", highlight=False)
