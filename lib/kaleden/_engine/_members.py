"""The sessions of a scope: how they are named, and how they are counted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias, final

from attrs import frozen

from kaleden._results._batch import Outcomes
from kaleden._wire import SessionInfo

Members: TypeAlias = str | SessionInfo | Outcomes[Any] | Iterable[str | SessionInfo]


@final
@frozen
class ScopeStatistics:
    """The state of a `Scope`.

    Attributes:
        owned: sessions that it will end.
        launching: creates that are on their way.
        doubtful: creates whose answer told nothing, and whose session was not found yet.
    """

    owned: int
    launching: int
    doubtful: int


def read_members(members: Members) -> list[str]:
    """List the ids of sessions that were named in any way."""
    if isinstance(members, str | SessionInfo):
        members = [members]
    elif isinstance(members, Outcomes):
        return members.ids

    return [member.id if isinstance(member, SessionInfo) else member for member in members]
