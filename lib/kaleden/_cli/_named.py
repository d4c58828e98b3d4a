"""Ids and names: commands take ids, since names are not unique, and tell who gives a name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kaleden._errors import FailureKind
from kaleden._results._batch import Failure
from kaleden._wire import SessionInfo


def by_id(sessions: Iterable[SessionInfo]) -> dict[str, SessionInfo]:
    """Sort sessions by their ids."""
    return {info.id: info for info in sessions}


def names_apart(
    keys: Iterable[str], listed: Mapping[str, SessionInfo], command: str
) -> dict[str, Failure]:
    """Find the keys that are no ids, but names of sessions, and say what to give instead."""
    named: dict[str, list[str]] = {}
    for info in listed.values():
        named.setdefault(info.name, []).append(info.id)

    return {
        key: Failure(
            key,
            FailureKind.INVALID,
            f"that is the name of {', '.join(named[key.lower()])}: {command} takes ids",
        )
        for key in keys
        if key not in listed and key.lower() in named
    }
