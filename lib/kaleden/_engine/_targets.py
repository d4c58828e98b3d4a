"""Where workers draw from: one iterable of the caller's, whatever its kind."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator, Sized
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, Self, TypeAlias, cast, final

from kaleden._engine._channel import SendItem, open_channel
from kaleden._results._batch import Outcomes
from kaleden._wire import SessionInfo

Members: TypeAlias = str | SessionInfo | Outcomes[Any] | Iterable[str | SessionInfo]


def read_members(members: Members) -> list[str]:
    """List the ids of sessions that were named in any way."""
    if isinstance(members, str | SessionInfo):
        members = [members]
    elif isinstance(members, Outcomes):
        return members.ids

    return [member.id if isinstance(member, SessionInfo) else member for member in members]


Keys: TypeAlias = Iterable[Any] | AsyncIterable[Any]

_SIZED: Final = (list, tuple, set, frozenset, dict, range)


def length_of(keys: Keys) -> int | None:
    """Tell how many keys there are; None if that is not known before they are drawn."""
    # Of anything else the length may be that of now: a queue's, say.
    return len(cast("Sized", keys)) if isinstance(keys, _SIZED) else None


def to_target(item: Any) -> Any:
    """Take the id of a session; an application of a desktop has only the desktop's."""
    return item.id if isinstance(item, SessionInfo) and item.app_id is None else item


@asynccontextmanager
async def open_source(keys: Keys) -> AsyncGenerator[AsyncIterator[Any]]:
    """Open *keys* for any number of tasks to draw from; its errors come out as themselves."""
    if not isinstance(keys, AsyncIterable):
        yield _SharedIterator(keys)
        return

    # Only one task may draw from an asynchronous iterable, so a task of its own does.
    async with open_channel(partial(_feed, keys)) as receive:
        yield receive


async def _feed(keys: AsyncIterable[Any], deliver: SendItem[Any]) -> None:
    iterator = aiter(keys)
    try:
        async for item in iterator:
            await deliver(item)
    finally:
        # A generator that is left in its middle may be closed only by the task that ran it.
        if isinstance(iterator, AsyncGenerator):
            await iterator.aclose()


@final
class _SharedIterator:
    """One synchronous iterator that many workers draw from; nothing can come between its steps."""

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
            # Once is enough: every other worker would raise it too.
            self._iterator = iter(())
            raise

        raise StopAsyncIteration
