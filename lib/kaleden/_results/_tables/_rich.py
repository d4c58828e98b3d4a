"""Tables for terminals, rendered by rich, which is imported when it is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kaleden._results._tables._layout import Tone, View

if TYPE_CHECKING:
    from rich.console import Group

COLOURS: Final = {
    Tone.GOOD: "green",
    Tone.BUSY: "cyan",
    Tone.WAITING: "yellow",
    Tone.BAD: "bold red",
    Tone.OTHER: "dim",
}


def to_rich(view: View) -> Group:
    """Render *view* for rich; its texts are not interpreted as markup."""
    from rich.console import Group  # noqa: PLC0415  # slow to import, and optional
    from rich.table import Column, Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    width = max((len(line.state) for line in view.lines), default=0)
    state = Column("state", no_wrap=True, min_width=width)
    table = Table(*view.headings[:1], state, *view.headings[1:])
    for line in view.lines:
        badge = Text(line.state, COLOURS[line.tone])
        table.add_row(*map(Text, line.cells[:1]), badge, *map(Text, line.cells[1:]))
    body = [table] if view.lines else []
    more = [Text(view.more)] if view.more else []
    return Group(Text(view.caption, "bold"), *body, *more)
