"""Followed logs: no line is lost or delivered twice, and a replaced log is reported."""

from __future__ import annotations

import gc
import random
import tracemalloc
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from attrs import evolve, frozen
from hypothesis import example, given, settings
from hypothesis import strategies as st

pytest.importorskip("anycorn")

import kaleden
from kaleden import Failure, FailureKind, SessionInfo
from kaleden._engine._config import Limits
from kaleden._engine._engine import Engine
from kaleden._engine._limiter import Limiter
from kaleden._sessions._monitor._follow import (
    CHUNK,
    READERS,
    WINDOW,
    LogCursor,
    LogDelta,
    LogItem,
    LogLine,
    LogReset,
    _deliver_delta,
    _FollowedLog,
    follow,
)
from kaleden._sessions._monitor._history import SessionHistory, SessionState
from kaleden._sessions._monitor._lister import SharedList
from kaleden._sessions._monitor._outage import Patience
from kaleden._sessions._monitor._poller import JITTER, MAX_INTERVAL, Poller, PollInterval
from kaleden._wire import Request, Response
from kaleden.local import Session
from kaleden.testing import MemoryTransport, run_virtual
from support import (
    PLAIN_BACKENDS,
    CheckpointCounter,
    FakeTransport,
    data,
    session_id,
    session_object,
    text,
)
from virtual_time import in_virtual_time

LATENCY = 0.1
LONGEST = MAX_INTERVAL * (1 + JITTER)
LIMITS = Limits()

Versions = list[tuple[float, bytes]]
Timeline = list[tuple[float, str | None]]


def get_value_at(values: list[tuple[float, Any]], now: float) -> Any:
    return [value for time, value in values if time <= now][-1]


class Server:
    """A server of sessions with logs and statuses by time; the status None means not listed."""

    def __init__(
        self,
        logs: dict[str, Versions],
        statuses: dict[str, Timeline] | None = None,
        end: float = 60,
    ) -> None:
        self.logs = logs
        self.statuses: dict[str, Timeline] = {
            key: [(0, "Running"), (end, "Completed")] for key in logs
        }
        self.statuses.update(statuses or {})
        self.listed_at: list[float] = []
        self.read_at = defaultdict[str, list[float]](list)
        self.list_fault: Callable[[], Response | None] = lambda: None
        self.log_fault: Callable[[str], Response | None] = lambda _: None
        self.transport = FakeTransport(self.respond)
        self.engine = Engine(Limiter(LIMITS.concurrency), self.transport)
        patience = Patience(3600.0, 60.0, lambda: self.engine.has_succeeded)
        interval = PollInterval(random.Random(1))
        self.poller = Poller(SharedList(self.engine, LIMITS), interval, patience)

    async def respond(self, request: Request) -> Response:
        now = anyio.current_time()
        if request.target == "session":
            self.listed_at.append(now)
            response = self.list_fault() or data(self.list_sessions(now))
        else:
            key = session_id(request)
            assert f"session/{key}?view=logs" == request.target
            self.read_at[key].append(now)
            response = self.log_fault(key) or self.log(key, now)

        await anyio.sleep(LATENCY)
        return response

    def list_sessions(self, now: float) -> list[dict[str, Any]]:
        listed = {key: get_value_at(values, now) for key, values in self.statuses.items()}
        return [session_object(key, status=status) for key, status in listed.items() if status]

    def log(self, key: str, now: float) -> Response:
        body = get_value_at(self.logs[key], now) if key in self.logs else b""
        return Response(200, {"content-type": "text/plain"}, body)

    def follow(self, *ids: Any) -> Any:
        return follow(self.engine, LIMITS, self.poller, ids, random.Random(2))

    async def read(self, *ids: Any) -> list[LogItem]:
        async with self.follow(*ids) as lines:
            return [item async for item in lines]


def grow(*pieces: tuple[float, bytes]) -> Versions:
    """Return the versions of a log to which *pieces* are appended at their times."""
    versions = [(0.0, b"")]
    for time, piece in pieces:
        versions.append((time, versions[-1][1] + piece))
    return versions


def to_lines(key: str, whole: str) -> list[LogItem]:
    return [LogLine(key, line) for line in whole.removesuffix("\n").split("\n") if whole]


# --- one log -------------------------------------------------------------------------------------


@in_virtual_time
async def test_lines_are_delivered_as_they_appear_until_the_session_ends() -> None:
    server = Server({"a": grow((0, b"one\n"), (20, b"two\nthree\n"), (59, b"four\n"))})
    delivered = []
    async with server.follow("a") as lines:
        async for line in lines:
            delivered.append((anyio.current_time(), line))  # noqa: PERF401  # each at its own time
    assert to_lines("a", "one\ntwo\nthree\nfour\n") == [line for _, line in delivered]
    for (time, _), due in zip(delivered, [0, 20, 20, 59], strict=True):
        assert due <= time <= due + LONGEST + 2 * LATENCY
    assert anyio.current_time() <= 60 + LONGEST + 1.2 * 2 + 3 * LATENCY


@in_virtual_time
async def test_line_is_held_until_it_is_complete() -> None:
    log = "naïve, 日本\n".encode()
    server = Server({"a": grow(*[(5.0 * n, log[n : n + 1]) for n in range(len(log))])}, end=200)
    async with server.follow("a") as lines:
        assert LogLine("a", "naïve, 日本") == await anext(lines)
        assert anyio.current_time() >= 5 * (len(log) - 1)


@in_virtual_time
async def test_last_line_needs_no_newline() -> None:
    server = Server({"a": grow((0, b"one\n\ntwo"))})
    assert to_lines("a", "one\n\ntwo") == await server.read("a")


@in_virtual_time
async def test_only_newline_ends_a_line() -> None:
    body = "10 %\r20 %\r\nform\x0cfeed\x0b\x85\u2028line\n"
    server = Server({"a": grow((0, body.encode()))})
    assert ["10 %\r20 %\r", "form\x0cfeed\x0b\x85\u2028line"] == [
        item.text for item in await server.read("a") if isinstance(item, LogLine)
    ]


@in_virtual_time
async def test_invalid_utf8_is_replaced() -> None:
    server = Server({"a": grow((0, b"\xff\xfe\x00x\nok\n"))})
    assert [LogLine("a", "��\x00x"), LogLine("a", "ok")] == await server.read("a")


@in_virtual_time
async def test_session_without_a_log_gives_no_line() -> None:
    server = Server({"a": grow()})
    assert [] == await server.read("a")
    assert 60 <= anyio.current_time() <= 60 + LONGEST + 2


@in_virtual_time
async def test_read_that_began_before_the_end_is_not_the_last() -> None:
    # A session that changes all the time keeps the lists frequent.
    restless: Timeline = [(n, "Running" if n % 2 else "Pending") for n in range(100)]
    server = Server({"a": grow((0, b"one\n"), (59, b"last\n"))}, {"other": restless})
    respond = server.respond
    slow_since: list[float] = []

    async def slow(request: Request) -> Response:
        whole = await respond(request)
        if "logs" in request.target and 45 < anyio.current_time() < 58:
            slow_since.append(anyio.current_time())
            await anyio.sleep(25)
        return whole

    server.transport.reply = slow
    assert to_lines("a", "one\nlast\n") == await server.read("a")
    [began] = slow_since
    assert began + 25 < anyio.current_time() < began + 25 + 2 * (1 + JITTER + LATENCY)


@in_virtual_time
async def test_ended_session_is_read_while_its_log_grows() -> None:
    server = Server({"a": []}, {"a": [(0, "Completed")]})

    def late(key: str) -> Response:
        return text("".join(f"{n}\n" for n in range(min(len(server.read_at[key]), 6))))

    server.log_fault = late
    assert to_lines("a", "0\n1\n2\n3\n4\n5\n") == await server.read("a")
    assert 7 == len(server.read_at["a"])


@in_virtual_time
async def test_failed_lists_after_the_end_lose_no_line() -> None:
    logs = {"a": grow((0, b"one\n"), (21, b"two\n"), (40, b"three\n")), "b": grow((0, b"x\n"))}
    server = Server(logs, {"a": [(0, "Running"), (20, "Completed")]}, end=100)
    respond = server.respond

    async def slow(request: Request) -> Response:
        if request.target == "session/a?view=logs" and anyio.current_time() > 20:
            await anyio.sleep(20)
        return await respond(request)

    server.transport.reply = slow
    server.list_fault = lambda: text("no", 403) if anyio.current_time() > 40 else None
    items = await server.read("a", "b")
    assert [("b", "not_authorized")] == [
        (item.key, item.kind) for item in items if isinstance(item, Failure)
    ]
    assert to_lines("a", "one\ntwo\nthree\n") == [
        item for item in items if isinstance(item, LogLine) and item.id == "a"
    ]


@in_virtual_time
async def test_ended_session_is_read_until_its_log_is_unchanged() -> None:
    server = Server({"a": grow((0, b"one\n"))}, {"a": [(0, "Completed")]})
    assert to_lines("a", "one\n") == await server.read("a")
    assert anyio.current_time() < 3
    assert 1 == len(server.listed_at)
    assert len(server.read_at["a"]) <= 3


# --- replaced logs -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "later", [b"new\n", b"oNe\ntwo\n", b"one\ntwO\n", b"one\ntwX\nthree\n", b"on", b"x" * 100]
)
@in_virtual_time
async def test_replaced_log_is_reported_and_read_from_its_start(later: bytes) -> None:
    server = Server({"a": [(0, b"one\ntwo\n"), (30, later)]})
    assert [
        *to_lines("a", "one\ntwo\n"),
        LogReset("a"),
        *to_lines("a", later.decode()),
    ] == await server.read("a")


@in_virtual_time
async def test_unfinished_line_is_delivered_before_a_reset() -> None:
    server = Server({"a": [(0, b"one\ntw"), (30, b"one\ntX\n")]})
    assert [
        LogLine("a", "one"),
        LogLine("a", "tw"),
        LogReset("a"),
        LogLine("a", "one"),
        LogLine("a", "tX"),
    ] == await server.read("a")


@in_virtual_time
async def test_empty_response_is_not_a_reset() -> None:
    whole = b"one\ntwo\nthr"
    server = Server({"a": [(0, b"one\n"), (10, b""), (30, whole), (55, b"")]})
    assert to_lines("a", whole.decode()) == await server.read("a")


# --- ends of logs --------------------------------------------------------------------------------


@in_virtual_time
async def test_missing_session_is_a_failure() -> None:
    server = Server({})
    [failure] = await server.read("a")
    assert isinstance(failure, Failure)
    assert ("a", FailureKind.NOT_FOUND) == (failure.key, failure.kind)
    assert "no session with this id" in failure.message


@in_virtual_time
async def test_vanished_session_gives_its_lines_and_a_failure() -> None:
    statuses: dict[str, Timeline] = {"a": [(0, "Running"), (30, None)]}
    server = Server({"a": grow((0, b"one\n"), (29, b"two\nthr"))}, statuses)
    *lines, failure = await server.read("a")
    assert to_lines("a", "one\ntwo\nthr") == lines
    assert isinstance(failure, Failure)
    assert FailureKind.VANISHED == failure.kind
    assert "it was Running" in failure.message


@in_virtual_time
async def test_session_that_vanishes_after_its_end_is_not_a_failure() -> None:
    statuses: dict[str, Timeline] = {"a": [(0, "Running"), (10, "Failed"), (25, None)]}
    server = Server({"a": grow((0, b"one\n"))}, statuses)
    assert to_lines("a", "one\n") == await server.read("a")


@in_virtual_time
async def test_invalid_id_is_a_failure_and_is_not_sent() -> None:
    server = Server({"a": grow((0, b"one\n"))})
    refused, line = await server.read("no id", "a", "a")
    assert isinstance(refused, Failure)
    assert ("no id", FailureKind.INVALID) == (refused.key, refused.kind)
    assert LogLine("a", "one") == line
    [other] = await server.read(5)
    assert isinstance(other, Failure)


@in_virtual_time
async def test_no_ids_cost_no_request_but_a_checkpoint() -> None:
    server = Server({})
    assert [] == await server.read()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await server.read()
    assert scope.cancelled_caught
    assert [] == server.transport.requests


@in_virtual_time
async def test_closed_client_raises_session_not_open() -> None:
    server = Server({})
    await server.engine.aclose()
    with pytest.raises(kaleden.SessionNotOpen):
        await server.read("a")


@in_virtual_time
async def test_listed_sessions_are_accepted_as_targets() -> None:
    server = Server({"desk": grow((0, b"one\n"))})
    desktop = SessionInfo(id="desk")
    app = SessionInfo(id="desk", app_id="x1y")
    assert to_lines("desk", "one\n") == await server.read(desktop, app)


# --- requests that fail --------------------------------------------------------------------------


@pytest.mark.parametrize("status", [503, 401])
@pytest.mark.parametrize("end", [70, 3000])
@in_virtual_time
async def test_server_outage_loses_no_line(status: int, end: float) -> None:
    log = grow((0, b"one\n"), (20, b"two\n"), (end + 20, b"three\n"))
    server = Server({"a": log}, end=end + 30)
    server.poller.patience = Patience(3600.0, 3600.0, lambda: True)

    def away() -> Response | None:
        return text("busy", status) if 10 < anyio.current_time() < end else None

    server.list_fault = away
    server.log_fault = lambda _: away()
    assert to_lines("a", "one\ntwo\nthree\n") == await server.read("a")


@pytest.mark.parametrize(
    ("status", "kind", "seconds"),
    [(503, "unavailable", 600), (401, "not_authenticated", 60), (400, "bad_request", 0)],
)
@in_virtual_time
async def test_unreadable_log_is_one_failure_and_others_continue(
    status: int, kind: str, seconds: float
) -> None:
    server = Server({"a": grow((0, b"one\n")), "b": grow((0, b"two\n"))}, end=1000)
    server.poller.patience = Patience(600.0, 60.0, lambda: True)
    server.log_fault = lambda key: text("no", status) if key == "a" and later() else None

    def later() -> bool:
        return anyio.current_time() > 5

    items = await server.read("a", "b")
    [failure] = [item for item in items if isinstance(item, Failure)]
    assert ("a", kind) == (failure.key, failure.kind)
    failed = [at for at in server.read_at["a"] if at > 5]
    assert seconds <= failed[-1] - failed[0] <= seconds + 72
    assert {LogLine("a", "one"), LogLine("b", "two")} == {
        item for item in items if isinstance(item, LogLine)
    }


@in_virtual_time
async def test_failures_are_counted_in_a_row() -> None:
    server = Server({"a": grow(*[(50.0 * n, b"x\n") for n in range(20)])}, end=1000)
    server.log_fault = lambda key: text("busy", 503) if len(server.read_at[key]) % 3 else None
    assert to_lines("a", "x\n" * 20) == await server.read("a")


@in_virtual_time
async def test_next_read_waits_for_retry_after() -> None:
    server = Server({"a": grow((0, b"one\n"))}, end=500)
    busy = text("busy", 503, **{"retry-after": "120"})
    server.log_fault = lambda key: busy if len(server.read_at[key]) == 2 else None
    assert to_lines("a", "one\n") == await server.read("a")
    _, second, third, *_ = server.read_at["a"]
    assert 120 + LATENCY == pytest.approx(third - second)


@in_virtual_time
async def test_html_page_instead_of_a_log_is_a_failure() -> None:
    page = Response(200, {"content-type": "text/html"}, b"<title>Sign in</title>" + b"x" * 10**6)
    server = Server({"a": grow((0, b"one\n"))}, end=500)
    server.log_fault = lambda _: page
    [failure] = await server.read("a")
    assert isinstance(failure, Failure)
    assert FailureKind.PROTOCOL == failure.kind
    assert "Sign in" in failure.message


@in_virtual_time
async def test_logs_end_as_failures_if_lists_fail() -> None:
    server = Server({"a": grow((0, b"one\n")), "b": grow((2, b"two"))})
    server.list_fault = lambda: text("no", 403)
    items = await server.read("a", "b")
    assert {"a", "b"} == {item.key for item in items if isinstance(item, Failure)}
    assert {LogLine("a", "one"), LogLine("b", "two")} == {
        item for item in items if isinstance(item, LogLine)
    }


# --- many logs -----------------------------------------------------------------------------------


@pytest.mark.slow
@in_virtual_time
async def test_hundred_logs_cost_one_list_per_poll_and_few_readers() -> None:
    count = 100
    logs = {
        f"s{n}": grow(*[(7.0 * k, f"{n} {k}\n".encode()) for k in range(8)]) for n in range(count)
    }
    server = Server(logs)
    items = await server.read(*logs)
    for n in range(count):
        expected = [LogLine(f"s{n}", f"{n} {k}") for k in range(8)]
        assert expected == [item for item in items if item.id == f"s{n}"]  # type: ignore[union-attr]
    assert server.transport.most_in_flight <= READERS + 1
    assert all(later - sooner >= 1 - JITTER for sooner, later in pairwise(server.listed_at))
    assert max(len(reads) for reads in server.read_at.values()) < 60


@in_virtual_time
async def test_quiet_log_is_read_rarely_and_busy_log_often() -> None:
    busy = grow(*[(float(n), b"x\n") for n in range(300)])
    server = Server({"busy": busy, "quiet": grow((0, b"one\n"))}, end=300)
    async with server.follow("busy", "quiet") as lines:
        async for _ in lines:
            pass
    quiet = [later - sooner for sooner, later in pairwise(server.read_at["quiet"])]
    assert len(quiet) <= 300 / (MAX_INTERVAL * (1 - JITTER)) + 12
    assert len(server.read_at["busy"]) > 300 / (1 + JITTER + 2 * LATENCY)


@in_virtual_time
async def test_session_that_starts_is_read_at_once() -> None:
    statuses: dict[str, Timeline] = {"a": [(0, "Pending"), (300, "Running"), (400, "Completed")]}
    server = Server({"a": grow((300, b"one\n"))}, statuses)
    async with server.follow("a") as lines:
        await anext(lines)
    listed = next(time for time in server.listed_at if time >= 300)
    assert any(listed < time <= listed + LATENCY + 1e-6 for time in server.read_at["a"])


@in_virtual_time
async def test_slow_log_does_not_delay_others() -> None:
    logs = {f"s{n}": grow((20, b"x\n")) for n in range(3)}
    server = Server(logs)
    respond = server.respond

    async def slow(request: Request) -> Response:
        if request.target.startswith("session/s0"):
            await anyio.sleep(25)
        return await respond(request)

    server.transport.reply = slow
    delivered = {}
    async with server.follow(*logs) as lines:
        async for item in lines:
            assert isinstance(item, LogLine)
            delivered[item.id] = anyio.current_time()
    assert max(delivered["s1"], delivered["s2"]) <= 20 + LONGEST + 3 * LATENCY


@in_virtual_time
async def test_slow_consumer_slows_down_the_reads() -> None:
    log = b"".join(b"%d\n" % n for n in range(3 * WINDOW))
    server = Server({"a": [(0, log)]}, end=10)
    async with server.follow("a") as lines:
        for n in range(10):
            await anyio.sleep(50)
            assert LogLine("a", str(n)) == await anext(lines)
    assert 1 == len(server.read_at["a"])


@in_virtual_time
async def test_leaving_the_stream_early_stops_all_requests() -> None:
    server = Server({"a": grow((0, b"one\ntwo\n"))})
    async with server.follow("a") as lines:
        assert LogLine("a", "one") == await anext(lines)
    with pytest.raises(kaleden.SessionNotOpen, match="left"):
        while True:
            await anext(lines)
    with pytest.raises(ZeroDivisionError, match="mine"):
        async with server.follow("a"):
            await anyio.sleep(1)
            raise ZeroDivisionError("mine")
    requests = len(server.transport.requests)
    await anyio.sleep(100)
    assert requests == len(server.transport.requests)
    assert (0, 0) == (server.engine.limiter.statistics().in_flight, server.transport.in_flight)


@in_virtual_time
async def test_cancelled_wait_for_a_line_loses_no_line() -> None:
    whole = b"".join(b"%d\n" % n for n in range(200))
    server = Server({"a": grow(*[(n / 4, b"%d\n" % n) for n in range(200)])})
    delivered: list[LogItem] = []
    async with server.follow("a") as lines:
        for step in range(10_000):
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as group:

                    async def cancel(after: int, scope: anyio.CancelScope) -> None:
                        for _ in range(after):
                            await checkpoint()
                        scope.cancel()

                    group.start_soon(cancel, step % 5, scope)
                    try:
                        delivered.append(await anext(lines))
                    except StopAsyncIteration:
                        break
            if scope.cancelled_caught:
                await anyio.sleep(0.05)
    assert to_lines("a", whole.decode()) == delivered


@in_virtual_time
async def test_follow_cancelled_at_any_step_leaves_no_request() -> None:
    server = Server({"a": grow((0, b"one\n")), "b": grow((0, b"two\n"))}, end=3)

    async def consume() -> None:
        async with server.follow("a", "b", "c") as lines:
            async for _ in lines:
                await checkpoint()

    for step in range(150):
        async with anyio.create_task_group() as group:
            group.start_soon(consume)
            for _ in range(step):
                await checkpoint()
            group.cancel_scope.cancel()
        assert (0, 0) == (server.engine.limiter.statistics().in_flight, server.transport.in_flight)


# --- a long log ----------------------------------------------------------------------------------


def build_long_log(lines: int) -> bytes:
    return b"".join(b"line %06d of a log that is long\n" % n for n in range(lines))


def open_growing_server(log: bytes) -> Server:
    """Return a server on which *log* grows evenly for a minute, with cuts anywhere in its lines."""
    server = Server({"a": []})

    async def respond(request: Request) -> Response:
        now = anyio.current_time()
        if request.target == "session":
            return data([session_object("a", status="Running" if now < 60 else "Completed")])

        return Response(200, {"content-type": "text/plain"}, log[: int(now / 60 * len(log))])

    server.transport.reply = respond
    return server


@pytest.mark.slow
@in_virtual_time
async def test_hundred_thousand_lines_in_a_minute_are_delivered_once() -> None:
    log = build_long_log(100_000)
    expected = iter(log.decode().splitlines())
    async with open_growing_server(log).follow("a") as lines:
        async for item in lines:
            assert LogLine("a", next(expected)) == item
    assert 60 <= anyio.current_time() < 60 + LONGEST
    assert [] == list(expected)


@pytest.mark.slow
@in_virtual_time
async def test_memory_does_not_grow_with_the_number_of_lines() -> None:
    lines = 20_000
    log = build_long_log(lines)
    server = open_growing_server(log)
    early, late = range(lines // 10, lines // 5), range(lines * 9 // 10, lines)
    most = {early: 0, late: 0}
    count = 0
    tracemalloc.start()
    async with server.follow("a") as stream:
        async for _ in stream:
            count += 1
            phase = next((phase for phase in most if count in phase), None)
            if phase is not None and count % 20 == 0:
                server.transport.requests.clear()
                gc.collect(0)
                most[phase] = max(most[phase], tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert lines == count
    # Plus a constant, less than a tenth of the size of the lines.
    assert most[late] < most[early] * 1.1 + 20_000


@in_virtual_time
async def test_comparison_of_a_long_log_has_checkpoints() -> None:
    log, whole, counter = LogCursor(), b"x" * (8 * CHUNK), CheckpointCounter()
    assert set() == {line for lines in log.feed(whole) for line in lines}
    async with anyio.create_task_group() as group:
        group.start_soon(counter.run)
        assert b"" == (await log.compare(whole)).fresh
        assert counter.count >= 7
        group.cancel_scope.cancel()


@in_virtual_time
async def test_reading_of_a_long_line_has_checkpoints() -> None:
    state = SessionState("a", SessionHistory(settle=30))
    session, counter = _FollowedLog("a", PollInterval(), state), CheckpointCounter()

    async def deliver(_: list[LogItem]) -> None:
        pytest.fail("no line has ended")

    async with anyio.create_task_group() as group:
        group.start_soon(counter.run)
        assert await _deliver_delta(session, LogDelta(b"x" * (50 * WINDOW)), deliver)
        assert counter.count >= 49
        group.cancel_scope.cancel()


@in_virtual_time
async def test_very_long_line_is_delivered_whole() -> None:
    size = 8 * CHUNK
    server = Server({"a": [(0, b"x" * (size // 2)), (5, b"x" * size), (9, b"x" * size + b"\n")]})
    [line] = await server.read("a")
    assert isinstance(line, LogLine)
    assert size == len(line.text)


# --- a whole platform ----------------------------------------------------------------------------


@in_virtual_time
async def test_follow_delivers_the_logs_of_a_batch_on_a_platform() -> None:
    def log(session: Session, seconds: float) -> str:
        return "".join(f"{session.spec.name} after {n} s\n" for n in range(int(seconds) + 1))

    transport = MemoryTransport(start_delay=20, duration=40, log=log)
    async with transport, kaleden.AsyncSession(transport=transport) as session:
        created = await session.create("fits", "skaha/astroml:latest", cmd="env", replicas=3)
        async with session.follow(created) as lines:
            delivered = [item async for item in lines]
    for name, key in created.successes.items():
        assert [LogLine(key, f"{name} after {n} s") for n in range(41)] == [
            item for item in delivered if isinstance(item, LogLine) and item.id == key
        ]
    assert 3 * 41 == len(delivered)


# --- a model -------------------------------------------------------------------------------------

STEP = 2 * LONGEST + 1  # long enough to be seen at any interval
PIECES = st.text(st.sampled_from("ab\n\n é日\r"), max_size=12).map(str.encode)


@st.composite
def draw_history(draw: st.DrawFn) -> tuple[list[bytes], list[LogItem]]:
    """Draw the states of a log, each of which is seen, and the expected items."""
    states: list[bytes] = []
    expected: list[LogItem] = []
    epoch = b""
    for _ in range(draw(st.integers(0, 6))):
        if draw(st.integers(0, 3)) == 0:
            other = draw(PIECES)
            if epoch and other and not other.startswith(epoch):
                expected += [*to_items(epoch), LogReset("a")]
                epoch = other
            states.append(epoch)
            continue
        grow = epoch + draw(PIECES)
        # The network or the server can cut anywhere, also within a character.
        cut = draw(st.integers(len(epoch), len(grow)))
        states += [grow[:cut], grow]
        epoch = grow
    return states, [*expected, *to_items(epoch)]


def to_items(log: bytes) -> list[LogItem]:
    return to_lines("a", log.decode("utf-8", "replace")) if log else []


@settings(max_examples=150, deadline=None)
@given(history=draw_history(), backend=st.sampled_from(PLAIN_BACKENDS))
def test_every_line_of_any_history_is_delivered_once(
    history: tuple[list[bytes], list[LogItem]], backend: Any
) -> None:
    states, expected = history

    async def scenario() -> None:
        versions = [(n * STEP, state) for n, state in enumerate([b"", *states])]
        server = Server({"a": versions}, end=len(versions) * STEP)
        assert expected == await server.read("a")

    run_virtual(scenario, backend=backend)


@settings(max_examples=100, deadline=None)
@given(
    pieces=st.lists(st.tuples(st.floats(0, 5), PIECES), max_size=40),
    backend=st.sampled_from(PLAIN_BACKENDS),
)
@example(pieces=[(0.0, b"a\n" * WINDOW), (0.0, b"b\n" * WINDOW)], backend="asyncio")
def test_fast_growing_log_loses_and_repeats_no_line(
    pieces: list[tuple[float, bytes]], backend: Any
) -> None:
    async def scenario() -> None:
        time, timed = 0.0, []
        for gap, piece in pieces:
            time += gap
            timed.append((time, piece))
        server = Server({"a": grow(*timed)}, end=time + 1)
        assert to_items(b"".join(piece for _, piece in pieces)) == await server.read("a")

    run_virtual(scenario, backend=backend)


@frozen
class TailTransport:
    """Keeps the last bytes of bodies, as transports do for logs that are too long."""

    transport: FakeTransport
    size: int

    async def send(self, request: Request) -> Response:
        response = await self.transport.send(request)
        if not request.keep_last:
            return response

        omitted = max(0, len(response.body) - self.size)
        return evolve(response, body=response.body[omitted:], omitted=omitted)


@in_virtual_time
async def test_end_of_a_log_that_is_too_long_is_followed() -> None:
    lines = [f"line {number:05}\n".encode() for number in range(3000)]
    versions = grow(*[(float(n), b"".join(lines[n * 30 : n * 30 + 30])) for n in range(100)])
    server = Server({"a": versions}, end=120)
    server.engine.transport = TailTransport(server.transport, 5000)
    items = await server.read("a")
    assert [] == [item for item in items if isinstance(item, Failure)]
    resets = [item for item in items if isinstance(item, LogReset)]
    texts = [item.text for item in items if isinstance(item, LogLine)]
    whole = [line.decode().strip() for line in lines]
    assert whole[-1] == texts[-1]
    # Lines are lost only where a reset says so, and none comes twice.
    complete = [text for text in texts if len(text) == len(whole[0])]
    assert complete == sorted(set(complete))
    if not resets:
        assert whole == texts


@in_virtual_time
async def test_log_that_grows_faster_than_its_end_is_read_reports_what_is_lost() -> None:
    server = Server({"a": [(0, b"one\n"), (10, b"one\n" + b"x" * 10_000 + b"\ntwo\n")]})
    server.engine.transport = TailTransport(server.transport, 100)
    items = await server.read("a")
    omitted = 4 + 10_000 + 5 - 100
    assert [
        LogLine("a", "one"),
        LogReset("a", omitted),
        LogLine("a", "x" * 95),
        LogLine("a", "two"),
    ] == items


@pytest.mark.parametrize("size", [1, 100, 10_000])
async def test_long_log_that_is_replaced_by_a_longer_one_is_reset(size: int) -> None:
    cursor = LogCursor()
    first = b"one\n" * size
    delta = await cursor.compare(first)
    assert first == delta.fresh
    list(cursor.feed(delta.fresh))
    grown = first + b"two\n"
    start = len(first) // 2
    assert b"two\n" == (await cursor.compare(grown[start:], start)).fresh
    other = b"new\n" * (size + 1)
    delta = await cursor.compare(other[start:], start)
    assert (other[start:], True, start) == (delta.fresh, delta.reset, delta.omitted)
