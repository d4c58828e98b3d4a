"""Tables: with colours where a person looks at a terminal, plain columns for all others."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Final

from kaleden._cli._io import printable
from kaleden._results._tables import COLOURS, Tone, find_status_tone

# An id is of no use if it is cut; where there is room, only names and images are folded.
_NEEDED: Final = frozenset({"ID"})
_SHORT: Final = _NEEDED | {"KIND", "STATUS", "STARTED"}
_WIDE: Final = 80


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Draw a table; an empty cell is shown as a hyphen."""
    cells = [[printable(cell) or "-" for cell in row] for row in rows]
    if _wants_colours():
        return _coloured(heads, cells)

    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in [heads, *cells])
    return "\n".join(lines)


def _wants_colours() -> bool:
    """Tell a terminal of somebody who has not said no (https://no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False

    return sys.stdout.isatty() and find_spec("rich") is not None


def _coloured(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    from rich.console import Console  # noqa: PLC0415  # of an extra
    from rich.table import Table  # noqa: PLC0415  # of an extra
    from rich.text import Text  # noqa: PLC0415  # of an extra

    console = Console()
    whole = _SHORT if console.width >= _WIDE else _NEEDED
    drawn = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for head in heads:
        drawn.add_column(head, no_wrap=head in whole, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(cell, _style(cell)) for cell in row))
    with console.capture() as captured:
        console.print(drawn)
    return captured.get().rstrip("\n")


def _style(cell: str) -> str:
    """Give a status its colour; all else has none."""
    tone = find_status_tone(cell)
    return "" if tone is Tone.OTHER else COLOURS[tone]
