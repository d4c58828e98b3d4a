"""HTML tables for notebooks."""

from __future__ import annotations

import html
from typing import Final

from kaleden._results._tables._layout import Line, Tone, View

# Each state has a background colour, so that it is legible on light and dark pages. Styles are
# inline, because notebooks that are not trusted drop style sheets.
BACKGROUNDS: Final = {
    Tone.GOOD: "#1a7f37",
    Tone.BUSY: "#0969da",
    Tone.WAITING: "#9a6700",
    Tone.BAD: "#cf222e",
    Tone.OTHER: "#59636e",
}
FOREGROUND: Final = "#ffffff"

_BADGE: Final = "color:{ink};background-color:{ground};padding:1px 7px;border-radius:9px"
_CELL: Final = ' style="text-align:left"'


def to_html(view: View) -> str:
    """Render *view* as an HTML table in which all text is escaped."""
    headings = [*view.headings[:1], "state", *view.headings[1:]]
    heads = "".join(f'<th scope="col"{_CELL}>{html.escape(head)}</th>' for head in headings)
    body = "".join(_format_row(line) for line in view.lines)
    caption = f"<caption{_CELL}>{html.escape(view.caption)}</caption>"
    head = f"<thead><tr>{heads}</tr></thead>" if view.lines else ""
    table = f"<table>{caption}{head}<tbody>{body}</tbody></table>"
    return f"{table}<p>{html.escape(view.more)}</p>" if view.more else table


def _format_row(line: Line) -> str:
    style = _BADGE.format(ink=FOREGROUND, ground=BACKGROUNDS[line.tone])
    state = f'<span style="{style}">{html.escape(line.state)}</span>'
    escaped = [html.escape(cell) for cell in line.cells]
    cells = [*escaped[:1], state, *escaped[1:]]
    return f"<tr>{''.join(f'<td{_CELL}>{cell}</td>' for cell in cells)}</tr>"
