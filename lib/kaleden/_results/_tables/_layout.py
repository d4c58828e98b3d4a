"""What of a table people look at: few columns, short cells, a tone for each state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from itertools import islice
from typing import Any, Final, TypeAlias, TypeVar, final

from attrs import frozen

from kaleden._results._tables._columns import Grid, Row
from kaleden._wire import SessionStatus

T = TypeVar("T")

ROWS: Final = 100
"""Rows that are shown; of a million results nobody looks at the rest."""

_WIDTH: Final = 80
_MESSAGE: Final = 300
"""Characters of one cell, and of one that says what went wrong."""


class Tone(StrEnum):
    """How a state is meant."""

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
    """One row as it is shown.

    Attributes:
        state: the word in the column ``state``.
        tone: how that is meant.
        cells: what stands in the other columns.
    """

    state: str
    tone: Tone
    cells: list[str]


@final
@frozen
class View:
    """A table as it is shown.

    Attributes:
        caption: what it is, in a few words.
        heads: the headings of all columns but the second, which is ``state``.
        lines: the rows.
        more: what is said of the rows that are not shown; empty if there are none.
    """

    caption: str
    heads: list[str]
    lines: list[Line]
    more: str


def _text(value: Any) -> str:
    return str(value)


def _gibibytes(value: Any) -> str:
    return f"{value / 2**30:.3g} GiB"


def _number(value: Any) -> str:
    return f"{value:g}"


def _time(value: Any) -> str:
    return f"{value:%Y-%m-%d %H:%M}" if isinstance(value, datetime) else str(value)


def _image(value: Any) -> str:
    """Name an image without its registry, which is the same for nearly all."""
    host, _, rest = str(value).partition("/")
    return rest if "." in host and rest else str(value)


def _last_line(value: Any) -> str:
    lines = str(value).strip().splitlines()
    return lines[-1] if lines else ""


_Shown: TypeAlias = tuple[str, str, Callable[[Any], str]]
"""Column, heading, and how it is shown."""

_COLUMNS: Final[tuple[_Shown, ...]] = (
    ("id", "id", _text),
    ("name", "name", _text),
    ("kind", "kind", _text),
    ("image", "image", _image),
    ("requested_cores", "cores", _number),
    ("requested_ram", "memory", _gibibytes),
    ("requested_gpus", "GPUs", _number),
    ("start_time", "started (UTC)", _time),
    ("expiry_time", "expires (UTC)", _time),
    ("value", "value", _text),
    ("log", "log ends", _last_line),
    ("last_event", "last event", _text),
    ("message", "message", _text),
)


# No GPUs are nothing to tell of, and beside logs there is no room for everything.
_NOTHING: Final = (None, "", 0)
_BESIDE_LOGS: Final = frozenset({"kind", "expiry_time", "last_event"})


def status_tone(status: str) -> Tone:
    """Tell how a status is meant, in whichever case; those that nobody knows are neither."""
    return _TONES.get(SessionStatus(status), Tone.OTHER)


def choose(items: Iterable[T], count: int, is_bad: Callable[[T], bool], most: int) -> list[T]:
    """Choose which items to show, in their order: all if they fit, else what went wrong first."""
    if count <= most:
        return list(items)

    kept = list(items)
    bad = list(islice((n for n, item in enumerate(kept) if is_bad(item)), most))
    good = islice((n for n, item in enumerate(kept) if not is_bad(item)), most - len(bad))
    return [kept[number] for number in sorted([*bad, *good])]


def view(grid: Grid, caption: str, total: int) -> View:
    """Make what is shown of *grid*, whose rows were chosen from *total*."""
    shown = [column for column in _COLUMNS if _says_something(column[0], grid.rows)]
    keyed = bool(grid.columns) and grid.columns[0].name == "key"
    heads = [*(["key"] if keyed else []), *(heading for _, heading, _ in shown)]
    lines = [_line(row, shown, keyed=keyed) for row in grid.rows]
    left = total - len(grid.rows)
    return View(caption, heads, lines, f"… and {left} more" if left else "")


def _says_something(name: str, rows: list[Row]) -> bool:
    """Whether a column has more to tell than the key does."""
    cells = [(row.get(name), row.get("key", "")) for row in rows]
    told = [(cell, key) for cell, key in cells if cell not in _NOTHING]
    if name in _BESIDE_LOGS and any(row.get("log") for row in rows):
        return False

    if name in {"id", "name"}:
        return any(not key or not str(cell).startswith(key) for cell, key in told)

    return bool(told)


def _line(row: Row, shown: Sequence[_Shown], *, keyed: bool) -> Line:
    state, tone = _state(row)
    cells = [_cell(row["key"])] if keyed else []
    for name, _, show in shown:
        value = row.get(name)
        text = "" if value is None else _attempted(show, value)
        cells.append(_cell(text, _MESSAGE if name == "message" else _WIDTH))
    return Line(_cell(state), tone, cells)


def _state(row: Row) -> tuple[str, Tone]:
    if row.get("failure"):
        return row["failure"], Tone.BAD

    status = row.get("status")
    return (status, status_tone(status)) if isinstance(status, str) else ("ok", Tone.GOOD)


def _attempted(show: Callable[[Any], str], value: Any) -> str:
    """Show a value; as it is, if it is none of those that its column is for."""
    try:
        return show(value)
    except (TypeError, ValueError):
        return str(value)


def _cell(text: str, width: int = _WIDTH) -> str:
    """Make one short line of what may be anything; what steers a terminal is left out."""
    clean = "".join(char if char.isprintable() else " " for char in text[: 2 * width])
    line = " ".join(clean.split())
    return line if len(line) <= width and len(text) <= 2 * width else f"{line[: width - 1]}…"
