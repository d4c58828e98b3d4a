"""Targets: the ways to name sessions, and one source of them for many workers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator, Sized
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, Self, TypeAlias, cast, final

from kaleden._engine._channel import SendItem, open_channel
from kaleden._errors import FailureKind
from kaleden._results._batch import Failure, Outcomes, get_targets
from kaleden._wire import SessionInfo, format_value

Members: TypeAlias = str | SessionInfo | Outcomes[Any] | Iterable[str | SessionInfo]
"""Sessions of a scope: one or many, by id or as an earlier call returned them."""

Ids: TypeAlias = Members | AsyncIterable[str | SessionInfo]
"""Sessions: one or many, by id or as an earlier call returned them, or as they become known."""

Keys: TypeAlias = Iterable[Any] | AsyncIterable[Any]
"""The items of `Ids`, each on its own, unchecked."""

_SIZED: Final = (list, tuple, set, frozenset, dict, range)


def as_keys(ids: Ids) -> Keys:
    """Return an iterable of single items for every way to name sessions."""
    if isinstance(ids, str | bytes | SessionInfo):
        return [ids]

    return get_targets(ids) if isinstance(ids, Outcomes) else ids


def read_members(members: Members) -> list[str]:
    """List the ids of sessions."""
    keys = cast("Iterable[str | SessionInfo | Failure]", as_keys(members))
    return [
        key.id if isinstance(key, SessionInfo) else key
        for key in keys
        if not isinstance(key, Failure)
    ]


def length_of(keys: Keys) -> int | None:
    """Return the number of keys; None if it is not known before they are iterated."""
    # Other objects, such as a queue, may have a length that changes.
    return len(cast("Sized", keys)) if isinstance(keys, _SIZED) else None


def to_target(item: Any) -> Any:
    """Return the id of a session; an application of a desktop has no id that requests take."""
    return item.id if isinstance(item, SessionInfo) and item.app_id is None else item


def key_of(item: Any) -> str:
    """Return the key of an outcome, also for an item that is not an id and will be refused."""
    if isinstance(item, str):
        return item

    if isinstance(item, Failure):
        return item.key

    return item.app_id or item.id if isinstance(item, SessionInfo) else f"<{format_value(item)}>"


def drop_failed_launches(keys: Keys) -> Keys:
    """Leave out the failures of launches that certainly have no session now."""
    if isinstance(keys, AsyncIterable):
        return keys

    return [
        key
        for key in keys
        if not isinstance(key, Failure) or key.kind is FailureKind.UNKNOWN_EFFECT
    ]


@asynccontextmanager
async def open_source(keys: Keys) -> AsyncGenerator[AsyncIterator[Any]]:
    """Share *keys* among any number of tasks; its errors are raised unchanged."""
    if not isinstance(keys, AsyncIterable):
        yield _SharedIterator(keys)
        return

    # Only one task may iterate an asynchronous iterable, so that task is one of its own.
    async with open_channel(partial(_feed, keys)) as receive:
        yield receive


async def _feed(keys: AsyncIterable[Any], deliver: SendItem[Any]) -> None:
    iterator = aiter(keys)
    try:
        async for item in iterator:
            await deliver(item)
    finally:
        # An unfinished generator may be closed only by the task that ran it.
        if isinstance(iterator, AsyncGenerator):
            await iterator.aclose()


@final
class _SharedIterator:
    """One synchronous iterator that many workers share; each step of it is atomic."""

    __slots__ = ("_iterator",)

    def __init__(self, keys: Iterable[Any]) -> None:
        self._iterator: Iterator[Any] = iter(keys)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        try:
            for item in self._iterator:
                return item
        except BaseException:
            # Raise it once: the other workers find the end.
            self._iterator = iter(())
            raise

        raise StopAsyncIteration
