"""The operations: for each method, the request it builds, the reply it parses, and its limits."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from typing import Any, TypeAlias

from kaleden import _wire
from kaleden._engine._config import Limits
from kaleden._engine._operation import Operation
from kaleden._engine._targets import Keys
from kaleden._results._batch import Outcomes
from kaleden._wire import Event, Headers, Launch, SessionInfo

Ids: TypeAlias = (
    str
    | SessionInfo
    | Outcomes[Any]
    | Iterable[str | SessionInfo]
    | AsyncIterable[str | SessionInfo]
)
"""Sessions, by id or as what an earlier call returned: one, many, or more as they come."""


def as_keys(ids: Ids) -> Keys:
    """Turn every way to name sessions into an iterable, with each item on its own."""
    if isinstance(ids, str | bytes | SessionInfo):
        return [ids]

    return ids.ids if isinstance(ids, Outcomes) else ids


def info(limits: Limits) -> Operation[SessionInfo]:
    """Read one session."""
    return Operation(
        "info",
        _wire.build_info,
        _wire.parse_info,
        limits.timeout,
        about=lambda info: info.id,
        repeats=True,
    )


def raw_info(limits: Limits) -> Operation[dict[str, Any]]:
    """Read one session, as the server tells of it."""
    return Operation(
        "raw info",
        _wire.build_info,
        _wire.parse_raw_info,
        limits.timeout,
        about=lambda found: str(found.get("id", "")),
        repeats=True,
    )


def logs(limits: Limits) -> Operation[str]:
    """Read one session's output."""
    return Operation("logs", _wire.build_logs, _wire.parse_logs, limits.timeout, repeats=True)


def events(limits: Limits) -> Operation[tuple[Event, ...]]:
    """Read what the platform reports of one session."""
    return Operation("events", _wire.build_events, _wire.parse_events, limits.timeout, repeats=True)


def renew(limits: Limits) -> Operation[bool]:
    """Put off one session's expiry."""
    return Operation("renew", _wire.build_renew, _wire.parse_done, limits.timeout, repeats=True)


def destroy(limits: Limits, *, repeats: bool = True) -> Operation[bool]:
    """Ask for one session's end; the server's answer proves nothing."""
    return Operation(
        "destroy", _wire.build_destroy, _wire.parse_done, limits.timeout, repeats=repeats
    )


def create(limits: Limits, launch: Launch, headers: Headers = ()) -> Operation[str]:
    """Launch one session; never repeated here, see `kaleden._sessions._launch._launcher`."""
    request = _wire.build_create(launch, headers=headers)
    return Operation("create", lambda _: request, _wire.parse_create, limits.create_timeout)
