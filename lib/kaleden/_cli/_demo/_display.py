"""The display of the demo: a live table on a terminal, plain lines otherwise."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kaleden import Failure, Outcomes, ProgressUpdate
from kaleden._cli._demo._replica import LIMIT, Share
from kaleden._results._tables import COLOURS, find_status_tone


@contextmanager
def open_status_display(console: Console) -> Generator[Callable[[ProgressUpdate], None]]:
    """Open a table that is redrawn in place on a terminal, or plain lines otherwise.

    Yield the function that shows the states of the sessions while the demo waits for their ends.
    """
    terminal = Live(console=console, auto_refresh=False) if console.is_terminal else nullcontext()
    with terminal as live:

        def show(update: ProgressUpdate) -> None:
            if update.operation != "wait":
                return

            if live is None:
                console.print(f"  {update}", highlight=False)
            else:
                live.update(format_table(update), refresh=True)

        yield show


def format_table(update: ProgressUpdate) -> Table:
    """Format the number of sessions in each status as a table with bars."""
    table = Table("status", "sessions", "")
    for status, count in sorted(update.items()):
        colour = COLOURS[find_status_tone(status)]
        table.add_row(Text(status, colour), str(count), Text("█" * count, colour))
    return table


def print_report(outcomes: Outcomes[Share], console: Console) -> None:
    """Print the outcome of each replica, the failures, and the sum of the results."""
    console.print(repr(outcomes))
    table = Table("replica", "outcome", "primes")
    for outcome in outcomes:
        if isinstance(outcome, Failure):
            table.add_row(outcome.key, Text(outcome.kind, "bold red"), "")
        else:
            table.add_row(outcome.key, Text("ok", "green"), str(outcome.value.primes))
    console.print(table)
    for failure in outcomes.failures.values():
        console.print(Text(str(failure), "red"), soft_wrap=True)

    total = sum(share.primes for share in outcomes.values)
    shares = f"{len(outcomes.values)} of {len(outcomes)} shares"
    console.print(f"{total} primes below {LIMIT} in {shares}", style="bold", highlight=False)
