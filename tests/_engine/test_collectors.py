"""Where outcomes go."""

from __future__ import annotations

import tracemalloc

import kaleden
from kaleden import Failure, FailureKind, Success
from kaleden._engine._collectors import MAX_DEFERRED, MAX_DEFERRED_BYTES, Collector, DeferredParsing
from kaleden._engine._operations import Operation
from kaleden._wire import Request, Response, build_info
from support import FakeTransport, data, session_id, session_object, text


def number(response: Response) -> int:
    return int(response.body)


def operation(parse: object = number) -> Operation[int]:
    return Operation("number", build_info, parse, 1.0)  # type: ignore[arg-type]


def reply(key: str, body: bytes) -> Success[Response]:
    return Success(key, Response(200, {}, body), attempts=3, elapsed=0.5)


async def filled(sink: DeferredParsing[int], count: int) -> None:
    for each in range(count):
        assert sink.claim(f"id{each}")
    for each in reversed(range(count)):
        await sink.deliver(reply(f"id{each}", b"%d" % each))


async def test_every_reply_is_read_in_the_order_of_the_claims_whatever_their_number() -> None:
    for count in (0, 1, MAX_DEFERRED - 1, MAX_DEFERRED, MAX_DEFERRED + 1, 5 * MAX_DEFERRED + 7):
        sink = DeferredParsing(operation())
        await filled(sink, count)
        assert [f"id{each}" for each in range(count)] == list(sink.results)
        assert list(range(count)) == [outcome.value for outcome in sink.results.values()]  # type: ignore[union-attr]


async def test_what_is_known_of_a_request_is_kept_until_its_reply_is_read() -> None:
    sink = DeferredParsing(operation())
    await sink.deliver(reply("a", b"1"))
    assert (3, 0.5) == (sink.results["a"].attempts, sink.results["a"].elapsed)


async def test_no_more_replies_are_held_than_are_read_together() -> None:
    read: list[bytes] = []

    def parse(response: Response) -> int:
        read.append(response.body)
        return 0

    sink = DeferredParsing(operation(parse))
    for each in range(10 * MAX_DEFERRED):
        await sink.deliver(reply(str(each), b"x"))
        assert each + 1 - len(read) < MAX_DEFERRED
    await sink.deliver(reply("long", b"x" * MAX_DEFERRED_BYTES))
    assert MAX_DEFERRED_BYTES == len(read[-1])
    for each in range(4):
        assert f"quarter{each}" not in [body[:8].decode() for body in read]
        await sink.deliver(
            reply(f"quarter{each}", b"quarter%d" % each + b"x" * (MAX_DEFERRED_BYTES // 4))
        )
    assert b"quarter3" == read[-1][:8]


async def test_an_error_that_never_should_be_costs_one_outcome() -> None:
    sink = DeferredParsing(operation())
    await sink.deliver(reply("a", b"1"))
    await sink.deliver(reply("b", b"two"))
    await sink.deliver(reply("c", b"3"))
    a, b, c = sink.results["a"], sink.results["b"], sink.results["c"]
    assert (a.ok, c.ok) == (True, True)
    assert isinstance(b, Failure)
    assert (FailureKind.INTERNAL, 200, True, 3) == (b.kind, b.status, b.sent, b.attempts)
    assert "please report this: ValueError" in b.message


async def test_replies_that_cannot_be_read_fail_among_many_that_can() -> None:
    async def served(request: Request) -> Response:
        key = session_id(request)
        if key.endswith("3"):
            return text("<html>Sign in</html>", 200)
        return data(session_object("other" if key.endswith("7") else key))

    ids = [f"id{each}" for each in range(1000)]
    async with kaleden.AsyncSession(transport=FakeTransport(served)) as session:
        outcomes = await session.info(ids)
    bad = [key for key in ids if key[-1] in "37"]
    assert bad == list(outcomes.failures)
    assert {FailureKind.PROTOCOL} == {failure.kind for failure in outcomes.failures.values()}
    assert "about session 'other'" in outcomes["id7"].message  # type: ignore[union-attr]


async def test_long_replies_are_not_piled_up() -> None:
    async def served(request: Request) -> Response:
        return text("x" * 2**20)

    async def peak(count: int) -> int:
        async with kaleden.AsyncSession(transport=FakeTransport(served)) as session:
            tracemalloc.start()
            try:
                await session.logs([f"id{each}" for each in range(count)])
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

    # Each log is there once as text, when it was read, and only the last ones as bytes too.
    assert await peak(64) < 64 * 2**20 * 1.25


async def test_what_was_claimed_is_done_when_its_outcome_comes() -> None:
    sink = Collector[int]()
    assert [True, True, False] == [sink.claim(key) for key in "aba"]
    await sink.deliver(Success("a", 1))
    assert [Success("a", 1)] == sink.completed
