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
    about: str = ""


SESSION: Final = (
    Column("id", about="session id"),
    Column("name", about="session name"),
    Column("kind", about="what the session is for"),
    Column("status", about="where it stands"),
    Column("user", about="whose it is"),
    Column("image", about="container image"),
    Column("start_time", Type.TIME, about="when it started"),
    Column("expiry_time", Type.TIME, about="when the server will end it"),
    Column("requested_cores", Type.NUMBER, about="CPU cores"),
    Column("cores_in_use", Type.NUMBER, about="CPU cores"),
    Column("requested_ram", Type.WHOLE, "B", "memory"),
    Column("ram_in_use", Type.WHOLE, "B", "memory"),
    Column("requested_gpus", Type.WHOLE, about="number of GPUs"),
    Column("fixed_resources", Type.FLAG, about="whether it cannot use more than it requested"),
    Column("uid", Type.WHOLE, about="user id of its processes"),
    Column("gid", Type.WHOLE, about="group id of its processes"),
    Column("app_id", about="id of a desktop app within its desktop"),
)
LOG: Final = Column("log", about="the session's output")
EVENTS: Final = (
    Column("events", Type.WHOLE, about="how many events the platform reports"),
    Column("last_event", about="the last of them"),
)
VALUE: Final = Column("value", Type.OTHER, about="what the operation returned")

BEFORE: Final = (
    Column("key", about="session id, or for launches the name"),
    Column("ok", Type.FLAG, about="whether it did what it was asked"),
)
AFTER: Final = (
    Column("failure", about="kind of the failure"),
    Column("message", about="what happened, in the server's own words"),
    Column("http_status", Type.WHOLE, about="HTTP status of a failure, if there was a reply"),
    Column("attempts", Type.WHOLE, about="how many times it was sent"),
    Column("elapsed", Type.NUMBER, "s", "time from taking it up to its end"),
)

# What each operation has to tell of a session, beyond whether it succeeded.
_OF: Final[dict[str, tuple[Column, ...]]] = {
    "connect": (),
    "create": (Column("id", about="session id"),),
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
_VALUE_IN: Final = {
    "connect": None,
    "create": "id",
    "destroy": None,
    "logs": "log",
    "reap": None,
    "renew": None,
}
_RESERVED: Final = frozenset(column.name for column in (*BEFORE, *AFTER))
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

    def cells(self, column: Column) -> list[Any]:
        """List what stands in one column; None where nothing does, or no column could hold it."""
        cells = [row.get(column.name) for row in self.rows]
        if column.type is Type.WHOLE:
            return [None if cell is None or abs(cell) > _LARGEST else cell for cell in cells]

        return cells


def outcome_grid(operation: str, outcomes: Iterable[Outcome[Any]]) -> Grid:
    """Make the table of what became of sessions."""
    rows = [_outcome_row(operation, outcome) for outcome in outcomes]
    known = (*BEFORE, *_OF.get(operation, ()), *AFTER)
    names = {column.name for column in known}
    others = dict.fromkeys(name for row in rows for name in row if name not in names)
    middle = (*known[len(BEFORE) : -len(AFTER)], *map(_column, others))
    return Grid(operation, (*BEFORE, *middle, *AFTER), rows)


def session_grid(sessions: Iterable[SessionInfo]) -> Grid:
    """Make the table of sessions."""
    return Grid("fetch", SESSION, [_session_row(info) for info in sessions])


def _column(name: str) -> Column:
    """Describe what its operation is not known for."""
    known = (column for column in (*SESSION, LOG, *EVENTS, VALUE) if column.name == name)
    return next(known, Column(name, Type.OTHER))


def _outcome_row(operation: str, outcome: Outcome[Any]) -> Row:
    row: Row = {"key": outcome.key, "ok": outcome.ok}
    if isinstance(outcome, Failure):
        row |= {
            "failure": str(outcome.kind),
            "message": outcome.message,
            "http_status": outcome.status,
        }
    else:
        row |= _value_cells(operation, outcome.value)
    return row | {"attempts": outcome.attempts, "elapsed": outcome.elapsed}


def _value_cells(operation: str, value: Any) -> Row:
    """Spread over columns what an operation returned for one session."""
    if isinstance(value, SessionInfo):
        return _session_row(value)

    if isinstance(value, FinishedSession):
        cells = {"log": value.log, **_event_cells(value.events)}
        return _session_row(value.info) | cells

    if isinstance(value, dict):
        return _object_cells(cast("dict[str, Any]", value))

    if operation == "events" and isinstance(value, tuple):
        return _event_cells(cast("tuple[Event, ...]", value))

    name = _VALUE_IN.get(operation, "value")
    return {} if name is None else {name: value}


def _session_row(info: SessionInfo) -> Row:
    return {column.name: _plain(getattr(info, column.name)) for column in SESSION}


def _event_cells(events: tuple[Event, ...]) -> Row:
    last = f"{events[-1].reason}: {events[-1].message}" if events else None
    return {"events": len(events), "last_event": last}


def _object_cells(value: dict[str, Any]) -> Row:
    """Keep the server's own names, where they are not ours."""
    named = ((name, cell) for name, cell in value.items() if name != _SECRET)
    return {f"{name}_" if name in _RESERVED else name: cell for name, cell in named}


def _plain(value: object) -> object:
    """Turn members of our vocabularies into plain strings, and times into those of UTC."""
    if isinstance(value, StrEnum):
        return str(value)

    return _in_utc(value) if isinstance(value, datetime) else value


def _in_utc(time: datetime) -> datetime | None:
    """Turn a time into one of UTC; a server may have one that no calendar has there."""
    try:
        return time.astimezone(UTC)
    except OverflowError:
        return None
