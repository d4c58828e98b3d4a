"""Columns of result tables.

The columns and their order depend only on the operation, not on its outcomes. Tables of several
calls can therefore be concatenated, even if all requests of one failed or it had no requests.
Tables contain no secrets: the URL of a session's page is left out.
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
    """The type of the values in a column; any value may be missing."""

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
        name: its name; the same as the name of the corresponding attribute, where there is one.
        type: the type of its values.
        unit: ``"B"`` or ``"s"``; empty for counts and for values without a unit.
        description: a short description of its values.
    """

    name: str
    type: Type = Type.TEXT
    unit: str = ""
    description: str = ""


SESSION: Final = (
    Column("id", description="session id"),
    Column("name", description="session name"),
    Column("kind", description="kind of session"),
    Column("status", description="status of the session"),
    Column("user", description="owner of the session"),
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
    Column("events", Type.WHOLE, description="number of events that the platform reports"),
    Column("last_event", description="the last event"),
)
VALUE: Final = Column("value", Type.OTHER, description="value that the operation returned")

LEADING: Final = (
    Column("key", description="session id; for launches, the session name"),
    Column("ok", Type.FLAG, description="whether the request succeeded"),
)
TRAILING: Final = (
    Column("failure", description="kind of the failure"),
    Column("message", description="description of the failure, in the server's words"),
    Column(
        "http_status", Type.WHOLE, description="HTTP status of a failure, if there was a response"
    ),
    Column("attempts", Type.WHOLE, description="number of times that the request was sent"),
    Column("elapsed", Type.NUMBER, "s", "time from its start to its outcome"),
)

# The columns of each operation, besides `LEADING` and `TRAILING`.
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
# The column of a scalar value. None for True, which the column ``ok`` shows, and for the URL of a
# session's page, which is a secret.
_VALUE_COLUMN: Final = {
    "connect": None,
    "create": "id",
    "destroy": None,
    "logs": "log",
    "reap": None,
    "renew": None,
}
_RESERVED: Final = frozenset(column.name for column in (*LEADING, *TRAILING))
_LARGEST: Final = 2**63 - 1  # the largest int64; a larger size (8 EiB) is an error of the server
_SECRET: Final = "connectURL"  # noqa: S105  # the key, in the server's own objects


@final
@frozen
class Grid:
    """The data of a table.

    Attributes:
        operation: the name of the method that returned the results.
        columns: the columns, in order.
        rows: the values of each row by column name; missing values may be left out.
    """

    operation: str
    columns: tuple[Column, ...]
    rows: list[Row]

    def get_cells(self, column: Column) -> list[Any]:
        """Return the values of one column; None if missing, or too large for an int64."""
        cells = [row.get(column.name) for row in self.rows]
        if column.type is Type.WHOLE:
            return [None if cell is None or abs(cell) > _LARGEST else cell for cell in cells]

        return cells


def build_outcome_grid(operation: str, outcomes: Iterable[Outcome[Any]]) -> Grid:
    """Build the table of outcomes."""
    rows = [_build_outcome_row(operation, outcome) for outcome in outcomes]
    known = (*LEADING, *_OPERATION_COLUMNS.get(operation, ()), *TRAILING)
    names = {column.name for column in known}
    others = dict.fromkeys(name for row in rows for name in row if name not in names)
    middle = (*known[len(LEADING) : -len(TRAILING)], *map(_make_column, others))
    return Grid(operation, (*LEADING, *middle, *TRAILING), rows)


def build_session_grid(sessions: Iterable[SessionInfo]) -> Grid:
    """Build the table of sessions."""
    return Grid("fetch", SESSION, [_build_session_row(info) for info in sessions])


def _make_column(name: str) -> Column:
    """Return the column for a name that is not among the columns of its operation."""
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
    """Build the cells for the value that an operation returned for one session."""
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
    """Keep the server's names; append ``_`` to those that are also names of our columns."""
    public = ((name, cell) for name, cell in value.items() if name != _SECRET)
    return {f"{name}_" if name in _RESERVED else name: cell for name, cell in public}


def _convert_cell(value: object) -> object:
    """Convert enumeration members to plain strings, and times to UTC."""
    if isinstance(value, datetime):
        try:
            return value.astimezone(UTC)
        except OverflowError:  # outside the range of datetime
            return None

    return str(value) if isinstance(value, StrEnum) else value
