"""Tables: coloured on a terminal, plain columns otherwise."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Final

from kaleden._cli._io import escape_controls
from kaleden._results._tables import COLOURS, Tone, find_status_tone

# Commands need whole ids, so these are never folded. From 80 columns on, only names and images are.
_NEVER_FOLDED: Final = frozenset({"ID"})
_UNFOLDED_IF_WIDE: Final = _NEVER_FOLDED | {"KIND", "STATUS", "STARTED"}
_WIDE: Final = 80


def format_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table; an empty cell becomes a hyphen."""
    cells = [[escape_controls(cell) or "-" for cell in row] for row in rows]
    if _use_colours():
        return _format_coloured(heads, cells)

    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in [heads, *cells])
    return "\n".join(lines)


def _use_colours() -> bool:
    """Whether standard output is a terminal where colours are not disabled.

    See https://no-color.org.
    """
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False

    return sys.stdout.isatty() and find_spec("rich") is not None


def _format_coloured(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    from rich.console import Console  # noqa: PLC0415  # of an extra
    from rich.table import Table  # noqa: PLC0415  # of an extra
    from rich.text import Text  # noqa: PLC0415  # of an extra

    console = Console()
    whole = _UNFOLDED_IF_WIDE if console.width >= _WIDE else _NEVER_FOLDED
    coloured = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for head in heads:
        coloured.add_column(head, no_wrap=head in whole, overflow="fold")
    for row in rows:
        coloured.add_row(*(Text(cell, _choose_style(cell)) for cell in row))
    with console.capture() as captured:
        console.print(coloured)
    return captured.get().rstrip("\n")


def _choose_style(cell: str) -> str:
    """Return the colour of a status; empty for other text."""
    tone = find_status_tone(cell)
    return "" if tone is Tone.OTHER else COLOURS[tone]
