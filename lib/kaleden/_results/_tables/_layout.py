"""Layout of displayed tables: a few columns, short cells, and a tone for each state."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from enum import StrEnum
from itertools import islice
from typing import Any, Final, TypeAlias, TypeVar, final

from attrs import frozen

from kaleden._results._tables._columns import Grid, Row
from kaleden._wire import SessionStatus

T = TypeVar("T")

MAX_ROWS: Final = 100
"""Maximum number of rows that are displayed."""

_MAX_CELL: Final = 80
_MAX_MESSAGE: Final = 300
"""Maximum lengths, in characters, of a cell and of a cell with a failure's message."""


class Tone(StrEnum):
    """The meaning of a state, which determines its colour."""

    GOOD = "good"
    BUSY = "busy"
    WAITING = "waiting"
    BAD = "bad"
    OTHER = "other"


_TONES: Final = {
    SessionStatus.PENDING: Tone.WAITING,
    SessionStatus.RUNNING: Tone.BUSY,
    SessionStatus.COMPLETED: Tone.GOOD,
    SessionStatus.SUCCEEDED: Tone.GOOD,
    SessionStatus.FAILED: Tone.BAD,
    SessionStatus.ERROR: Tone.BAD,
}


@final
@frozen
class Line:
    """One row of a displayed table.

    Attributes:
        state: the text in the column ``state``.
        tone: the tone of the state.
        cells: the texts in the other columns.
    """

    state: str
    tone: Tone
    cells: list[str]


@final
@frozen
class View:
    """A table for display.

    Attributes:
        caption: a short description of the table.
        headings: the headings of all columns except the second, which is ``state``.
        lines: the rows.
        more: a note with the number of rows that are left out; empty if there are none.
    """

    caption: str
    headings: list[str]
    lines: list[Line]
    more: str


def _format_gibibytes(value: Any) -> str:
    return f"{value / 2**30:.3g} GiB"


def _format_number(value: Any) -> str:
    return f"{value:g}"


def _format_time(value: Any) -> str:
    return f"{value:%Y-%m-%d %H:%M}" if isinstance(value, datetime) else str(value)


def _format_image(value: Any) -> str:
    """Format an image reference without its registry, which is nearly always the same."""
    host, _, rest = str(value).partition("/")
    return rest if "." in host and rest else str(value)


def _get_last_line(value: Any) -> str:
    lines = str(value).strip().splitlines()
    return lines[-1] if lines else ""


_ColumnFormat: TypeAlias = tuple[str, str, Callable[[Any], str]]
"""The name of a column, its heading, and the function that formats its values."""

_COLUMNS: Final[tuple[_ColumnFormat, ...]] = (
    ("id", "id", str),
    ("name", "name", str),
    ("kind", "kind", str),
    ("image", "image", _format_image),
    ("requested_cores", "cores", _format_number),
    ("requested_ram", "memory", _format_gibibytes),
    ("requested_gpus", "GPUs", _format_number),
    ("start_time", "started (UTC)", _format_time),
    ("expiry_time", "expires (UTC)", _format_time),
    ("value", "value", str),
    ("log", "log ends", _get_last_line),
    ("last_event", "last event", str),
    ("message", "message", str),
)


# Values that do not justify a column; zero is included because of the number of GPUs.
_EMPTY: Final = (None, "", 0)
_HIDDEN_BESIDE_LOGS: Final = frozenset({"kind", "expiry_time", "last_event"})


def find_status_tone(status: str) -> Tone:
    """Return the tone of a status, ignoring case; unknown statuses are `Tone.OTHER`."""
    return _TONES.get(SessionStatus(status), Tone.OTHER)


def select_rows(items: Collection[T], is_bad: Callable[[T], bool], limit: int) -> list[T]:
    """Return at most *limit* items, in their order; failures take precedence."""
    if len(items) <= limit:
        return list(items)

    kept = list(items)
    bad = list(islice((n for n, item in enumerate(kept) if is_bad(item)), limit))
    good = islice((n for n, item in enumerate(kept) if not is_bad(item)), limit - len(bad))
    return [kept[number] for number in sorted([*bad, *good])]


def build_view(grid: Grid, caption: str, total: int) -> View:
    """Build the display of *grid*, which has a selection of *total* rows."""
    columns = [column for column in _COLUMNS if _is_informative(column[0], grid.rows)]
    keyed = bool(grid.columns) and grid.columns[0].name == "key"
    headings = [*(["key"] if keyed else []), *(heading for _, heading, _ in columns)]
    lines = [_build_line(row, columns, keyed=keyed) for row in grid.rows]
    left = total - len(grid.rows)
    return View(caption, headings, lines, f"… and {left} more" if left else "")


def _is_informative(name: str, rows: list[Row]) -> bool:
    """Whether a column has information that the column ``key`` does not have."""
    cells = [(row.get(name), row.get("key", "")) for row in rows]
    present = [(cell, key) for cell, key in cells if cell not in _EMPTY]
    if name in _HIDDEN_BESIDE_LOGS and any(row.get("log") for row in rows):
        return False

    if name in {"id", "name"}:
        return any(not key or not str(cell).startswith(key) for cell, key in present)

    return bool(present)


def _build_line(row: Row, columns: Sequence[_ColumnFormat], *, keyed: bool) -> Line:
    state, tone = _get_state(row)
    cells = [_format_cell(row["key"])] if keyed else []
    for name, _, show in columns:
        value = row.get(name)
        text = "" if value is None else _try_format(show, value)
        cells.append(_format_cell(text, _MAX_MESSAGE if name == "message" else _MAX_CELL))
    return Line(_format_cell(state), tone, cells)


def _get_state(row: Row) -> tuple[str, Tone]:
    if row.get("failure"):
        return row["failure"], Tone.BAD

    status = row.get("status")
    return (status, find_status_tone(status)) if isinstance(status, str) else ("ok", Tone.GOOD)


def _try_format(show: Callable[[Any], str], value: Any) -> str:
    """Format a value with *show*; fall back to ``str`` for a value of another type."""
    try:
        return show(value)
    except (TypeError, ValueError):
        return str(value)


def _format_cell(text: str, width: int = _MAX_CELL) -> str:
    """Format any text as one short line, without characters that control a terminal."""
    clean = "".join(char if char.isprintable() else " " for char in text[: 2 * width])
    line = " ".join(clean.split())
    return line if len(line) <= width and len(text) <= 2 * width else f"{line[: width - 1]}…"
