"""The sinks for outcomes."""

from __future__ import annotations

import tracemalloc

import kaleden
from kaleden import Failure, FailureKind, Success
from kaleden._engine._collectors import MAX_DEFERRED, MAX_DEFERRED_BYTES, Collector, DeferredParsing
from kaleden._engine._operations import Operation
from kaleden._wire import Request, Response
from kaleden._wire._requests import build_info
from support import FakeTransport, data, session_id, session_object, text


def parse_number(response: Response) -> int:
    return int(response.body)


def make_operation(parse: object = parse_number) -> Operation[int]:
    return Operation("numbers", build_info, parse, 1.0)  # type: ignore[arg-type]


def make_success(key: str, body: bytes) -> Success[Response]:
    return Success(key, Response(200, {}, body), attempts=3, elapsed=0.5)


async def fill(sink: DeferredParsing[int], count: int) -> None:
    for each in range(count):
        assert sink.claim(f"id{each}")
    for each in reversed(range(count)):
        await sink.deliver(make_success(f"id{each}", b"%d" % each))


async def test_responses_are_parsed_in_the_order_of_the_claims() -> None:
    for count in (0, 1, MAX_DEFERRED - 1, MAX_DEFERRED, MAX_DEFERRED + 1, 5 * MAX_DEFERRED + 7):
        sink = DeferredParsing(make_operation())
        await fill(sink, count)
        assert [f"id{each}" for each in range(count)] == list(sink.results)
        assert list(range(count)) == [outcome.value for outcome in sink.results.values()]  # type: ignore[union-attr]


async def test_deferred_response_keeps_its_attempts_and_elapsed_time() -> None:
    sink = DeferredParsing(make_operation())
    await sink.deliver(make_success("a", b"1"))
    assert (3, 0.5) == (sink.results["a"].attempts, sink.results["a"].elapsed)


async def test_unparsed_responses_are_bounded_in_number_and_bytes() -> None:
    parsed: list[bytes] = []

    def parse(response: Response) -> int:
        parsed.append(response.body)
        return 0

    sink = DeferredParsing(make_operation(parse))
    for each in range(10 * MAX_DEFERRED):
        await sink.deliver(make_success(str(each), b"x"))
        assert each + 1 - len(parsed) < MAX_DEFERRED
    await sink.deliver(make_success("long", b"x" * MAX_DEFERRED_BYTES))
    assert MAX_DEFERRED_BYTES == len(parsed[-1])
    for each in range(4):
        assert f"quarter{each}" not in [body[:8].decode() for body in parsed]
        await sink.deliver(
            make_success(f"quarter{each}", b"quarter%d" % each + b"x" * (MAX_DEFERRED_BYTES // 4))
        )
    assert b"quarter3" == parsed[-1][:8]


async def test_parser_bug_fails_only_its_own_outcome() -> None:
    sink = DeferredParsing(make_operation())
    await sink.deliver(make_success("a", b"1"))
    await sink.deliver(make_success("b", b"two"))
    await sink.deliver(make_success("c", b"3"))
    a, b, c = sink.results["a"], sink.results["b"], sink.results["c"]
    assert (a.ok, c.ok) == (True, True)
    assert isinstance(b, Failure)
    assert (FailureKind.INTERNAL, 200, True, 3) == (b.kind, b.status, b.sent, b.attempts)
    assert "please report this: ValueError" in b.message


async def test_malformed_responses_fail_only_their_own_outcomes() -> None:
    async def reply(request: Request) -> Response:
        key = session_id(request)
        if key.endswith("3"):
            return text("<html>Sign in</html>", 200)
        return data(session_object("other" if key.endswith("7") else key))

    ids = [f"id{each}" for each in range(1000)]
    async with kaleden.AsyncSession(transport=FakeTransport(reply)) as session:
        outcomes = await session.info(ids)
    bad = [key for key in ids if key[-1] in "37"]
    assert bad == list(outcomes.failures)
    assert {FailureKind.PROTOCOL} == {failure.kind for failure in outcomes.failures.values()}
    assert "about session 'other'" in outcomes["id7"].message  # type: ignore[union-attr]


async def test_long_responses_do_not_accumulate() -> None:
    async def reply(request: Request) -> Response:
        return text("x" * 2**20)

    async def measure_peak_memory(count: int) -> int:
        async with kaleden.AsyncSession(transport=FakeTransport(reply)) as session:
            tracemalloc.start()
            try:
                await session.logs([f"id{each}" for each in range(count)])
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

    # Each parsed log is held as text, and only the last ones also as bytes.
    assert await measure_peak_memory(64) < 64 * 2**20 * 1.25


async def test_claimed_key_is_completed_when_its_outcome_is_delivered() -> None:
    sink = Collector[int]()
    assert [True, True, False] == [sink.claim(key) for key in "aba"]
    await sink.deliver(Success("a", 1))
    assert [Success("a", 1)] == sink.completed
