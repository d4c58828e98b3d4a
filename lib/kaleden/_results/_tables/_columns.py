"""What a table of results has in its columns: the same ones, in the same order, whatever came.

The columns are those of the operation, also if everything failed or nothing was asked for, so that
tables of several calls fit together. Secrets are in none: the URL of a session's page is left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, TypeAlias, cast, final

from attrs import frozen

from kaleden._results._outcome import Failure, FinishedSession, Outcome
from kaleden._wire import Event, SessionInfo

Row: TypeAlias = dict[str, Any]


class Type(StrEnum):
    """What stands in a column; any of it may be missing."""

    TEXT = "text"
    WHOLE = "whole"
    NUMBER = "number"
    FLAG = "flag"
    TIME = "time"
    OTHER = "other"


@final
@frozen
class Column:
    """One column.

    Attributes:
        name: what it is called; the attribute of the same thing, where there is one.
        type: what stands in it.
        unit: ``"B"`` or ``"s"``; empty for what is counted or has none.
        about: what it tells.
    """

    name: str
    type: Type = Type.TEXT
    unit: str = ""
    description: str = ""


SESSION: Final = (
    Column("id", description="session id"),
    Column("name", description="session name"),
    Column("kind", description="what the session is for"),
    Column("status", description="where it stands"),
    Column("user", description="whose it is"),
    Column("image", description="container image"),
    Column("start_time", Type.TIME, description="when it started"),
    Column("expiry_time", Type.TIME, description="when the server will end it"),
    Column("requested_cores", Type.NUMBER, description="CPU cores"),
    Column("cores_in_use", Type.NUMBER, description="CPU cores"),
    Column("requested_ram", Type.WHOLE, "B", "memory"),
    Column("ram_in_use", Type.WHOLE, "B", "memory"),
    Column("requested_gpus", Type.WHOLE, description="number of GPUs"),
    Column(
        "fixed_resources", Type.FLAG, description="whether it cannot use more than it requested"
    ),
    Column("uid", Type.WHOLE, description="user id of its processes"),
    Column("gid", Type.WHOLE, description="group id of its processes"),
    Column("app_id", description="id of a desktop app within its desktop"),
)
LOG: Final = Column("log", description="the session's output")
EVENTS: Final = (
    Column("events", Type.WHOLE, description="how many events the platform reports"),
    Column("last_event", description="the last of them"),
)
VALUE: Final = Column("value", Type.OTHER, description="what the operation returned")

LEADING: Final = (
    Column("key", description="session id, or for launches the name"),
    Column("ok", Type.FLAG, description="whether it did what it was asked"),
)
TRAILING: Final = (
    Column("failure", description="kind of the failure"),
    Column("message", description="what happened, in the server's own words"),
    Column("http_status", Type.WHOLE, description="HTTP status of a failure, if there was a reply"),
    Column("attempts", Type.WHOLE, description="how many times it was sent"),
    Column("elapsed", Type.NUMBER, "s", "time from taking it up to its end"),
)

# What each operation has to tell of a session, beyond whether it succeeded.
_OPERATION_COLUMNS: Final[dict[str, tuple[Column, ...]]] = {
    "connect": (),
    "create": (Column("id", description="session id"),),
    "destroy": (),
    "events": EVENTS,
    "info": SESSION,
    "logs": (LOG,),
    "raw info": (),
    "reap": (),
    "renew": (),
    "run": (*SESSION, LOG, *EVENTS),
    "wait": SESSION,
}
# Where a plain value stands. To be True is told by ``ok``, and the URL of a page is a secret.
_VALUE_COLUMN: Final = {
    "connect": None,
    "create": "id",
    "destroy": None,
    "logs": "log",
    "reap": None,
    "renew": None,
}
_RESERVED: Final = frozenset(column.name for column in (*LEADING, *TRAILING))
_LARGEST: Final = 2**63 - 1  # a size of eight exbibytes is a server's mistake
_SECRET: Final = "connectURL"  # noqa: S105  # the key, in the server's own objects


@final
@frozen
class Grid:
    """A table: its columns, and rows in which what is missing may be left out.

    Attributes:
        operation: the method that it is from.
        columns: the columns, in their order.
        rows: what stands in them, by the columns' names.
    """

    operation: str
    columns: tuple[Column, ...]
    rows: list[Row]

    def get_cells(self, column: Column) -> list[Any]:
        """List what stands in one column; None where nothing does, or no column could hold it."""
        cells = [row.get(column.name) for row in self.rows]
        if column.type is Type.WHOLE:
            return [None if cell is None or abs(cell) > _LARGEST else cell for cell in cells]

        return cells


def build_outcome_grid(operation: str, outcomes: Iterable[Outcome[Any]]) -> Grid:
    """Make the table of what became of sessions."""
    rows = [_build_outcome_row(operation, outcome) for outcome in outcomes]
    known = (*LEADING, *_OPERATION_COLUMNS.get(operation, ()), *TRAILING)
    names = {column.name for column in known}
    others = dict.fromkeys(name for row in rows for name in row if name not in names)
    middle = (*known[len(LEADING) : -len(TRAILING)], *map(_make_column, others))
    return Grid(operation, (*LEADING, *middle, *TRAILING), rows)


def build_session_grid(sessions: Iterable[SessionInfo]) -> Grid:
    """Make the table of sessions."""
    return Grid("fetch", SESSION, [_build_session_row(info) for info in sessions])


def _make_column(name: str) -> Column:
    """Describe what its operation is not known for."""
    known = (column for column in (*SESSION, LOG, *EVENTS, VALUE) if column.name == name)
    return next(known, Column(name, Type.OTHER))


def _build_outcome_row(operation: str, outcome: Outcome[Any]) -> Row:
    row: Row = {"key": outcome.key, "ok": outcome.ok}
    if isinstance(outcome, Failure):
        row |= {
            "failure": str(outcome.kind),
            "message": outcome.message,
            "http_status": outcome.status,
        }
    else:
        row |= _build_value_cells(operation, outcome.value)
    return row | {"attempts": outcome.attempts, "elapsed": outcome.elapsed}


def _build_value_cells(operation: str, value: Any) -> Row:
    """Spread over columns what an operation returned for one session."""
    if isinstance(value, SessionInfo):
        return _build_session_row(value)

    if isinstance(value, FinishedSession):
        cells = {"log": value.log, **_build_event_cells(value.events)}
        return _build_session_row(value.info) | cells

    if isinstance(value, dict):
        return _build_object_cells(cast("dict[str, Any]", value))

    if operation == "events" and isinstance(value, tuple):
        return _build_event_cells(cast("tuple[Event, ...]", value))

    name = _VALUE_COLUMN.get(operation, "value")
    return {} if name is None else {name: value}


def _build_session_row(info: SessionInfo) -> Row:
    return {column.name: _convert_cell(getattr(info, column.name)) for column in SESSION}


def _build_event_cells(events: tuple[Event, ...]) -> Row:
    last = f"{events[-1].reason}: {events[-1].message}" if events else None
    return {"events": len(events), "last_event": last}


def _build_object_cells(value: dict[str, Any]) -> Row:
    """Keep the server's own names, where they are not ours."""
    named = ((name, cell) for name, cell in value.items() if name != _SECRET)
    return {f"{name}_" if name in _RESERVED else name: cell for name, cell in named}


def _convert_cell(value: object) -> object:
    """Turn members of our vocabularies into plain strings, and times into those of UTC."""
    if isinstance(value, StrEnum):
        return str(value)

    return _convert_to_utc(value) if isinstance(value, datetime) else value


def _convert_to_utc(time: datetime) -> datetime | None:
    """Turn a time into one of UTC; a server may have one that no calendar has there."""
    try:
        return time.astimezone(UTC)
    except OverflowError:
        return None
