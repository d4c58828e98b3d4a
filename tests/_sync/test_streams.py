"""Streams of `Session`: which ids they draw, and which items they keep."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

pytest.importorskip("anycorn")

import kaleden
from _sync.helpers import QUICK
from kaleden import Session
from kaleden._sync._streams import fetch_batch
from kaleden._wire import Request, Response
from kaleden.testing import MemoryTransport
from support import FULL_IMAGE, FakeTransport, described


def test_stream_draws_no_more_ids_than_it_can_request(backend: Any) -> None:
    drawn = 0

    def ids() -> Iterator[str]:
        nonlocal drawn
        while True:
            drawn += 1
            yield f"id{drawn}"

    async def reply(request: Request) -> Response:
        if transport.in_flight == 4:
            is_full.set()
        await is_full.wait()
        return await described(request)

    is_full = anyio.Event()
    transport = FakeTransport(reply)
    with Session(transport=transport, concurrency=4, backend=backend) as session:
        with session.stream.info(ids()) as results:
            for taken, _ in enumerate(results, 1):
                assert drawn <= taken + 64
                if taken == 500:
                    break
        assert 4 == transport.most_in_flight


def test_stream_is_usable_only_inside_its_block(backend: Any) -> None:
    with Session(transport=FakeTransport(described), backend=backend) as session:
        results = session.stream.info(["id0", "id1"])
        with pytest.raises(kaleden.SessionNotOpen, match="inside"):
            next(results)
        with results:
            next(results)
        with pytest.raises(kaleden.SessionNotOpen, match="inside"):
            next(results)


def test_stream_shows_its_state(backend: Any) -> None:
    with Session(transport=FakeTransport(described), backend=backend) as session:
        stream = session.stream.info(["abc", "def"])
        assert "<SyncOutcomeStream: not open, 0 at hand>" == repr(stream)
        with stream:
            assert "<SyncOutcomeStream: open, 0 at hand>" == repr(stream)
            assert 2 == len(list(stream))
            assert "<SyncOutcomeStream: ended, 0 at hand>" == repr(stream)


def test_log_stream_ends_with_the_sessions(backend: Any) -> None:
    platform = MemoryTransport(log=lambda _session, _seconds: "one\ntwo\n", **QUICK)
    with Session(transport=platform, backend=backend) as session:
        created = session.create("plain", FULL_IMAGE, cmd="echo")
        with session.follow(created) as lines:
            texts = [line.text for line in lines if isinstance(line, kaleden.LogLine)]
    assert ["one", "two"] == texts


def test_ids_that_read_their_own_stream_get_an_error(backend: Any) -> None:
    with Session(transport=FakeTransport(described), backend=backend) as session:

        def keys() -> Iterator[str]:
            yield "abc"
            next(results)

        results = session.stream.info(keys())
        with pytest.raises(ValueError, match="already executing"), results:
            list(results)
        assert session.info("abc").ok


class InterruptedIds:
    """Ids that raise KeyboardInterrupt once, after some of them, and then continue."""

    def __init__(self, ids: list[str], after: int) -> None:
        self._ids = ids
        self._after = after
        self._count = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self._count == self._after:
            self._after = -1
            raise KeyboardInterrupt

        if self._count == len(self._ids):
            raise StopIteration

        self._count += 1
        return self._ids[self._count - 1]


@pytest.mark.parametrize("after", [0, 3, 20])
def test_interrupt_loses_no_drawn_id(after: int, backend: Any) -> None:
    ids = [f"id{number}" for number in range(20)]
    keys: list[str] = []
    interruptions = 0
    with (
        Session(transport=FakeTransport(described), backend=backend) as session,
        session.stream.info(InterruptedIds(ids, after)) as results,
    ):
        while len(keys) < len(ids) or not interruptions:
            try:
                keys.append(next(results).key)
            except KeyboardInterrupt:
                interruptions += 1
        with pytest.raises(StopIteration):
            next(results)
    assert ids == sorted(keys, key=ids.index)


@pytest.mark.parametrize("passes", [0, 1, 3])
async def test_cancellation_loses_no_fetched_item(passes: int) -> None:
    class FakeStream:
        """Returns one item at each call, and cancels the scope after some passes."""

        given = 0

        async def __anext__(self) -> int:
            return 0

        def receive_nowait(self) -> list[int]:
            self.given += 1
            if self.given > passes:
                scope.cancel()
            return [self.given]

    ready = deque[int]()
    stream = FakeStream()
    with anyio.CancelScope() as scope:
        await fetch_batch(stream, ready)
    assert scope.cancelled_caught
    assert [*range(stream.given + 1)] == [*ready]
