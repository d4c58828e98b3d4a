"""Waits for sessions: one list per poll, and one outcome for each session."""

from __future__ import annotations

import logging
import pickle
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import pairwise
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("anycorn")

import kaleden
from kaleden import Failure, FailureKind, Outcomes, SessionInfo, SessionStatus, Success
from kaleden._engine._config import Limits
from kaleden._engine._engine import Engine
from kaleden._engine._limiter import Limiter
from kaleden._http import TransportError
from kaleden._sessions._monitor._lister import SharedList
from kaleden._sessions._monitor._outage import FAILED_INTERVALS, Patience
from kaleden._sessions._monitor._poller import (
    GROWTH,
    JITTER,
    MAX_INTERVAL,
    REFUSED_INTERVAL,
    SHRINKAGE,
)
from kaleden._sessions._monitor._wait import Waiter
from kaleden._wire import Request, Response
from kaleden.testing import MemoryTransport, run_virtual
from support import PLAIN_BACKENDS, FakeTransport, data, session_object, text
from virtual_time import in_virtual_time

LATENCY = 0.1
LONGEST = MAX_INTERVAL * (1 + JITTER)
LIMITS = Limits()

Timeline = list[tuple[float, str | None]]


class Server:
    """A server of sessions with statuses that change at given times; None means not listed."""

    def __init__(self, timelines: dict[str, Timeline]) -> None:
        self.timelines = timelines
        self.start_time = ""
        self.listed_at: list[float] = []
        self.other_targets: list[str] = []
        self.events: Callable[[Request], Response] = lambda _: text("not found.", 404)
        self.fault: Callable[[], Response | None] = lambda: None
        self.transport = FakeTransport(self.respond)
        self.engine = Engine(Limiter(LIMITS.concurrency), self.transport)
        sessions = SharedList(self.engine, LIMITS)
        random_source = random.Random(0)
        self.waiter = Waiter(
            sessions,
            SharedList(self.engine, LIMITS, "desktop-app"),
            self.engine,
            LIMITS,
            Patience(3600.0, 60.0, lambda: self.engine.has_succeeded),
            random_source,
        )

    async def respond(self, request: Request) -> Response:
        if request.target != "session":
            self.other_targets.append(request.target)
            return self.events(request)

        now = anyio.current_time()
        self.listed_at.append(now)
        await anyio.sleep(LATENCY)
        return self.fault() or data(
            [
                session_object(key, status=status, startTime=self.start_time)
                for key, timeline in self.timelines.items()
                if (status := get_status_at(timeline, now)) is not None
            ]
        )

    async def wait(self, *ids: Any, **options: Any) -> Outcomes[SessionInfo]:
        return await self.waiter.wait(ids, **options)


def get_status_at(timeline: Timeline, now: float) -> str | None:
    return [status for time, status in timeline if time <= now][-1]


def always(status: str) -> Timeline:
    return [(0, status)]


def get_results(outcomes: Outcomes[SessionInfo]) -> dict[str, str]:
    """Return the status of each session, or the kind of its failure."""
    return {
        outcome.key: outcome.value.status if isinstance(outcome, Success) else outcome.kind
        for outcome in outcomes
    }


# --- outcomes of a session -----------------------------------------------------------------------


@in_virtual_time
async def test_default_condition_is_any_terminal_status() -> None:
    ends = ["Completed", "Succeeded", "Failed", "Error"]
    server = Server({f"s{n}": [(0, "Running"), (5, end)] for n, end in enumerate(ends)})
    outcomes = await server.wait("s2", "s0", "s1", "s3")
    assert {"s2": "Failed", "s0": "Completed", "s1": "Succeeded", "s3": "Error"} == get_results(
        outcomes
    )
    assert ["s2", "s0", "s1", "s3"] == [info.id for info in outcomes.values]
    assert "wait" == outcomes.operation
    assert all(5 < outcome.elapsed < 5 + LONGEST for outcome in outcomes)


@pytest.mark.parametrize(
    "until",
    [
        "Running",
        "running",
        SessionStatus.RUNNING,
        {"Running"},
        frozenset({SessionStatus.RUNNING, SessionStatus.COMPLETED}),
        ["Failed", "Running"],
        lambda info: info.status == "Running",
    ],
)
@in_virtual_time
async def test_until_accepts_statuses_and_functions(until: Any) -> None:
    server = Server({"a": [(0, "Pending"), (7, "Running")]})
    assert {"a": "Running"} == get_results(await server.wait("a", until=until))


@in_virtual_time
async def test_old_and_new_names_of_a_status_are_equivalent() -> None:
    server = Server({"old": always("Succeeded"), "new": always("Completed")})
    for until in ("Completed", "Succeeded"):
        assert (await server.wait("old", "new", until=until)).ok


@pytest.mark.parametrize("until", ["Runing", [], set(), ["Running", 5], 5, None, anyio.sleep])
@in_virtual_time
async def test_invalid_until_is_refused(until: Any) -> None:
    server = Server({})
    with pytest.raises(kaleden.InvalidRequest):
        await server.wait("a", until=until)
    assert [] == server.transport.requests


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), True, "5"])
@in_virtual_time
async def test_invalid_pending_timeout_is_refused(seconds: Any) -> None:
    server = Server({})
    with pytest.raises(kaleden.InvalidRequest, match="pending_timeout"):
        await server.wait("a", pending_timeout=seconds)


@in_virtual_time
async def test_unknown_status_of_the_server_can_be_waited_for() -> None:
    server = Server({"a": [(0, "Running"), (3, "Hibernated")]})
    assert {"a": "Hibernated"} == get_results(
        await server.wait("a", until=SessionStatus("Hibernated"))
    )


@in_virtual_time
async def test_wrong_end_is_reported_within_one_interval() -> None:
    server = Server(
        {"a": [(0, "Pending"), (100, "Failed")], "b": [(0, "Pending"), (150, "Running")]}
    )
    ended = {}
    async with server.waiter.stream(["a", "b"], "Running") as outcomes:
        async for outcome in outcomes:
            ended[outcome.key] = (outcome, anyio.current_time())
    failure, at = ended["a"]
    assert isinstance(failure, Failure)
    assert FailureKind.WRONG_STATE == failure.kind
    assert "Failed" in failure.message
    assert "Running" in failure.message
    assert 100 < at <= 100 + LONGEST + 2 * LATENCY
    assert ended["b"][0].ok
    assert isinstance(failure.to_exception(), kaleden.WrongState)


@in_virtual_time
async def test_vanished_session_is_reported_with_its_last_status() -> None:
    server = Server({"a": [(0, "Running"), (100, None)], "b": always("Completed")})
    outcomes = await server.wait("a", "b")
    assert {"a": "vanished", "b": "Completed"} == get_results(outcomes)
    assert "it was Running" in outcomes.failures["a"].message
    assert 100 < anyio.current_time() <= 100 + LONGEST + 1.2 + 2 * LATENCY
    assert 2 == len([at for at in server.listed_at if at >= 100])


@in_virtual_time
async def test_unknown_session_is_not_found_after_two_lists() -> None:
    server = Server({})
    outcomes = await server.wait("a")
    assert {"a": "not_found"} == get_results(outcomes)
    assert "no session with this id" in outcomes.failures["a"].message
    assert 2 == len(server.listed_at)
    assert anyio.current_time() < 2


@in_virtual_time
async def test_unreadable_elements_of_a_list_are_reported_with_a_vanished_session() -> None:
    server = Server({"b": always("Completed")})
    server.fault = lambda: data([session_object("b", status="Completed"), {"no": "id"}, "x"])
    outcomes = await server.wait("a", "b")
    assert {"a": "not_found", "b": "Completed"} == get_results(outcomes)
    assert "it may be one of 2 unreadable elements" in outcomes.failures["a"].message


@in_virtual_time
async def test_single_list_without_a_session_does_not_make_it_vanish() -> None:
    server = Server({"a": [(0, "Running"), (60, "Completed")]})
    respond = server.respond

    async def respond_with_gaps(request: Request) -> Response:
        whole = await respond(request)
        return data([]) if len(server.listed_at) in {2, 4, 6} else whole

    server.transport.reply = respond_with_gaps
    assert {"a": "Completed"} == get_results(await server.wait("a"))
    assert 6 < len(server.listed_at)


@in_virtual_time
async def test_each_id_has_one_outcome_in_the_order_given() -> None:
    server = Server({"a": always("Completed"), "b": always("Failed")})
    outcomes = await server.wait("b", "no id", "a", "b", 5, "a")
    assert {"b": "Failed", "no id": "invalid", "a": "Completed", "<5>": "invalid"} == get_results(
        outcomes
    )
    assert ["b", "no id", "a", "<5>"] == [outcome.key for outcome in outcomes]
    assert not outcomes.failures["no id"].sent


@in_virtual_time
async def test_ids_may_be_any_iterable() -> None:
    async def later() -> AsyncIterator[str]:
        for key in ("a", "b"):
            await checkpoint()
            yield key

    server = Server({"a": always("Completed"), "b": always("Failed")})
    expected = await server.wait("a", "b")
    for ids in (
        iter(["a", "b"]),
        later(),
        expected.values,
        (info.id for info in expected.values),
    ):
        assert expected == await server.waiter.wait(ids)


@in_virtual_time
async def test_exception_of_the_iterable_is_raised_unchanged() -> None:
    def broken() -> Iterator[str]:
        yield "a"
        raise ZeroDivisionError("mine")

    async def broken_later() -> AsyncIterator[str]:
        yield "a"
        raise ZeroDivisionError("mine")

    server = Server({})
    for ids in (broken, broken_later):
        with pytest.raises(ZeroDivisionError, match="mine"):
            await server.waiter.wait(ids())
        with pytest.raises(ZeroDivisionError, match="mine"):
            async with server.waiter.stream(ids()):
                pytest.fail("there is nothing to wait for")
    assert [] == server.transport.requests


@in_virtual_time
async def test_no_ids_cost_no_request_but_a_checkpoint() -> None:
    server = Server({})
    assert 0 == len(await server.wait())
    async with server.waiter.stream([]) as outcomes:
        assert [] == [outcome async for outcome in outcomes]
    with anyio.CancelScope() as scope:
        scope.cancel()
        await server.wait()
    assert scope.cancelled_caught
    assert [] == server.transport.requests


@in_virtual_time
async def test_closed_client_raises_session_not_open() -> None:
    server = Server({"a": always("Running"), "b": always("Completed")})
    ended = await server.wait("b")
    async with anyio.create_task_group() as group:

        async def wait_until_closed() -> None:
            with pytest.raises(kaleden.SessionNotOpen):
                await server.wait("a")

        group.start_soon(wait_until_closed)
        await anyio.sleep(5)
        await server.engine.aclose()
    with pytest.raises(kaleden.SessionNotOpen):
        await server.wait()
    with pytest.raises(kaleden.SessionNotOpen):
        await ended.retry_failed()
    with pytest.raises(kaleden.SessionNotOpen):
        async with server.waiter.stream(["a"]):
            pytest.fail("the client is closed")


@in_virtual_time
async def test_applications_of_desktops_use_their_own_list() -> None:
    app = SessionInfo(id="desk", app_id="x1y", status=SessionStatus.RUNNING)
    server = Server({"desk": always("Running"), "job": [(0, "Running"), (20, "Completed")]})

    def apps(_: Request) -> Response:
        status = "Running" if anyio.current_time() < 30 else "Completed"
        return data([session_object("desk", appid="x1y", status=status)])

    server.events = apps
    ended = []
    async with server.waiter.stream([app, "job"]) as outcomes:
        async for outcome in outcomes:
            assert isinstance(outcome, Success)
            ended.append((outcome.key, outcome.value.app_id))
    assert [("job", None), ("x1y", "x1y")] == ended
    assert {"session?type=desktop-app"} == set(server.other_targets)
    assert (await server.waiter.wait([app])).ok
    assert {"x1y": "not_found"} == get_results(await server.wait("x1y"))


# --- sessions that do not start ------------------------------------------------------------------

TIME = "2026-01-01T00:00:00Z"
EVENTS = f"""TYPE      REASON      MESSAGE                 FIRST-TIME   LAST-TIME
Normal    Queued      wait_until_closed for its turn      {TIME}   {TIME}
Normal    Admitted    has room                {TIME}   {TIME}
Normal    Scheduled   to node 7               {TIME}   {TIME}
Warning   Failed      cannot pull the image   {TIME}   {TIME}
"""


@in_virtual_time
async def test_pending_timeout_is_reported_with_the_last_events() -> None:
    server = Server(
        {"a": always("Pending"), "b": [(0, "Pending"), (50, "Running"), (200, "Completed")]}
    )
    server.events = lambda _: text(EVENTS)
    delivered: dict[str, float] = {}
    async with server.waiter.stream(["a", "b"], pending_timeout=60) as outcomes:
        async for outcome in outcomes:
            delivered[outcome.key] = anyio.current_time()
            if isinstance(outcome, Failure):
                assert FailureKind.PENDING_TIMEOUT == outcome.kind
                assert "cannot pull the image" in outcome.message
                assert "Scheduled" in outcome.message
                assert "Queued" not in outcome.message
    assert 60 <= delivered["a"] <= 60 + LONGEST + 2 * LATENCY
    assert 200 <= delivered["b"]
    assert ["session/a?view=events"] == server.other_targets


@pytest.mark.parametrize(
    ("events", "message"),
    [
        (text("session a not found.", 404), "reports no events"),
        (text("<none>\n"), "reports no events"),
        (text("unexpected exception: boom", 500), "could not be read: unexpected exception: boom"),
    ],
)
@in_virtual_time
async def test_pending_timeout_is_reported_without_events(events: Response, message: str) -> None:
    server = Server({"a": always("Pending")})
    server.events = lambda _: events
    outcomes = await server.wait("a", pending_timeout=10)
    assert {"a": "pending_timeout"} == get_results(outcomes)
    assert message in outcomes.failures["a"].message


@pytest.mark.parametrize(
    ("events", "result"),
    [
        (text("<none>\n"), "Completed"),
        (text("unexpected exception: boom", 500), "Completed"),
        (text("session a not found.", 404), "Completed"),
        (text(EVENTS.replace("Failed ", "Started")), "Completed"),
        (text(EVENTS), "pending_timeout"),
        (text("no", 403), "pending_timeout"),
    ],
)
@in_virtual_time
async def test_session_that_may_have_been_started_is_not_late(
    events: Response, result: str
) -> None:
    server = Server({"a": [(0, "Pending"), (100, "Running"), (200, "Completed")]})
    server.start_time = TIME
    server.events = lambda _: events
    assert {"a": result} == get_results(await server.wait("a", pending_timeout=10))


@in_virtual_time
async def test_session_that_an_earlier_wait_has_seen_running_is_not_late() -> None:
    server = Server({"a": [(0, "Running"), (50, "Pending"), (200, "Completed")]})
    assert (await server.wait("a", until="Running")).ok
    await anyio.sleep(60)
    outcomes = await server.wait("a", pending_timeout=10)
    assert {"a": "Completed"} == get_results(outcomes)


@in_virtual_time
async def test_failure_stays_small_with_long_events() -> None:
    server = Server({"a": always("Pending")})
    server.events = lambda _: text(EVENTS.replace("cannot", "cannot" * 1000))
    outcomes = await server.wait("a", pending_timeout=1)
    assert len(pickle.dumps(outcomes.failures["a"])) < 1024
    assert Outcomes.from_json(outcomes.to_json(), SessionInfo) == outcomes


@in_virtual_time
async def test_pending_timeout_does_not_apply_if_pending_is_the_goal() -> None:
    server = Server({"a": always("Pending")})
    assert (await server.wait("a", until="Pending", pending_timeout=0.001)).ok


# --- polls ---------------------------------------------------------------------------------------


@pytest.mark.slow
@in_virtual_time
async def test_thousand_sessions_and_fifty_waits_cost_one_list_per_poll() -> None:
    ends = {f"s{n}": 10 + n % 97 for n in range(1000)}
    server = Server({key: [(0, "Running"), (end, "Completed")] for key, end in ends.items()})
    ended = Counter[str]()

    async def wait(first: int) -> None:
        outcomes = await server.wait(*[f"s{n % 1000}" for n in range(first, first + 40)])
        assert outcomes.ok
        assert 40 == len(outcomes)
        ended.update(outcome.key for outcome in outcomes)

    async with anyio.create_task_group() as group:
        for waiter in range(50):
            group.start_soon(wait, waiter * 20)
    assert {2} == set(ended.values())
    assert 1000 == len(ended)
    assert [] == server.other_targets
    gaps = [later - sooner for sooner, later in pairwise(server.listed_at)]
    assert min(gaps) >= (1 - JITTER) + LATENCY - 1e-6, "one list at a time, at one interval"
    assert len(server.listed_at) <= 107 / (1 - JITTER)
    listed = len(server.listed_at)
    await anyio.sleep(1000)
    assert listed == len(server.listed_at), "no list without a wait"


@in_virtual_time
async def test_polls_become_rare_while_nothing_changes() -> None:
    server = Server({"a": [(0, "Running"), (600, "Completed")]})
    await server.wait("a")
    gaps = [later - sooner for sooner, later in pairwise(server.listed_at)]
    assert all(MAX_INTERVAL * (1 - JITTER) <= gap - LATENCY <= LONGEST + 1e-6 for gap in gaps[8:])
    assert gaps[0] - LATENCY <= 1 + JITTER
    assert len(gaps) < 9 + 600 / (MAX_INTERVAL * (1 - JITTER))


@in_virtual_time
async def test_interval_does_not_depend_on_the_number_of_waits() -> None:
    server = Server({"a": [(0, "Running"), (20, "Completed")]})
    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(server.wait, "a")
    for step, (sooner, later) in enumerate(pairwise(server.listed_at[:5])):
        assert abs(later - sooner - LATENCY - GROWTH**step) <= JITTER * GROWTH**step + 1e-6


@in_virtual_time
async def test_polls_become_frequent_after_a_change() -> None:
    server = Server({"a": [(0, "Pending"), (600, "Running"), (640, "Completed")]})
    await server.wait("a")
    seen = next(at for at in server.listed_at if at >= 600)
    after = next(at for at in server.listed_at if at > seen)
    assert after - seen <= MAX_INTERVAL / SHRINKAGE * (1 + JITTER) + LATENCY + 1e-6


@in_virtual_time
async def test_late_wait_polls_at_once_and_then_shares_the_interval() -> None:
    server = Server({"a": [(0, "Running"), (300, "Completed")], "b": always("Completed")})
    async with anyio.create_task_group() as group:
        group.start_soon(server.wait, "a")
        await anyio.sleep(200)
        before = len(server.listed_at)
        outcomes = await server.wait("b")
        assert {"b": "Completed"} == get_results(outcomes)
        assert 200 + LATENCY == pytest.approx(anyio.current_time())
        assert before + 1 == len(server.listed_at)
        await anyio.sleep(0.7)
        assert before + 1 == len(server.listed_at)
        await anyio.sleep(0.7)
        assert before + 2 == len(server.listed_at)


@in_virtual_time
async def test_list_that_began_before_the_wait_is_not_used() -> None:
    server = Server({"a": always("Running")})
    async with anyio.create_task_group() as group:
        group.start_soon(server.wait, "a", "b")
        await anyio.sleep(LATENCY / 2)
        server.timelines = {
            "a": always("Completed"),
            "b": always("Completed"),
            "c": always("Failed"),
        }
        assert {"c": "Failed"} == get_results(await server.wait("c"))
    assert 2 == len(server.listed_at)


@in_virtual_time
async def test_waits_that_start_at_different_times_share_lists_without_delay() -> None:
    server = Server({"a": [(0, "Running"), (10, "Completed")], "b": always("Completed")})
    took = []

    async def wait_for_b() -> None:
        joined = anyio.current_time()
        await server.wait("b")
        took.append(anyio.current_time() - joined)

    async with anyio.create_task_group() as group:
        for _ in range(200):
            group.start_soon(server.wait, "a")
            group.start_soon(wait_for_b)
            await anyio.sleep(0.01)
    assert max(took) <= 2 * LATENCY + 1e-6
    assert 10 < anyio.current_time() < 10 + LONGEST
    assert len(server.listed_at) <= 2 / LATENCY + 1 + 10 / (1 - JITTER)


@in_virtual_time
async def test_wait_that_starts_with_a_list_shares_it() -> None:
    server = Server({})

    async def respond_at_once(_: Request) -> Response:
        now = anyio.current_time()
        server.listed_at.append(now)
        return data([session_object("a", status="Running" if now < 5 else "Completed")])

    server.transport.reply = respond_at_once
    for _ in range(10):
        assert (await server.wait("a", until="Running")).ok
    assert [0] == server.listed_at
    assert (await server.wait("a")).ok
    assert 5 <= anyio.current_time() <= 5 + LONGEST
    assert all(later - sooner >= 1 - JITTER for sooner, later in pairwise(server.listed_at))


@in_virtual_time
async def test_cancelled_wait_does_not_affect_the_others() -> None:
    server = Server({"a": [(0, "Running"), (50, "Completed")]})
    ended = []

    async def wait() -> None:
        ended.append(get_results(await server.wait("a")))

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(wait)
        with anyio.move_on_after(LATENCY / 2):
            await server.wait("a")
        for _ in range(20):
            with anyio.move_on_after(3):
                await server.wait("a")
    assert [{"a": "Completed"}] * 3 == ended
    assert (0, 0) == (server.engine.limiter.statistics().in_flight, server.transport.in_flight)


@in_virtual_time
async def test_wait_ends_at_the_deadline_of_the_caller() -> None:
    server = Server({"a": always("Running")})
    with pytest.raises(TimeoutError):
        with anyio.fail_after(123.4):
            await server.wait("a")
    assert 123.4 == pytest.approx(anyio.current_time())


# --- lists that fail -----------------------------------------------------------------------------


def build_unavailable(seconds: float | None = None) -> Response:
    headers = {} if seconds is None else {"retry-after": str(seconds)}
    return text("temporarily unavailable: /session", 503, **headers)


@in_virtual_time
async def test_wait_survives_a_server_outage_of_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server({"a": [(0, "Running"), (30, "Completed")]})
    server.fault = lambda: build_unavailable() if 5 < anyio.current_time() < 65 else None
    assert {"a": "Completed"} == get_results(await server.wait("a"))
    assert {logging.WARNING} == {record.levelno for record in caplog.records}
    assert ["cannot be listed now", "listed again, after"] == [
        next(part for part in ("cannot be listed now", "listed again, after") if part in message)
        for message in caplog.messages
    ]


@in_virtual_time
async def test_lasting_server_outage_fails_every_session_of_every_wait(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server({})
    server.fault = build_unavailable
    delivered: dict[str, Outcomes[SessionInfo]] = {}

    async def wait(*ids: str) -> None:
        delivered[ids[0]] = await server.wait(*ids)

    async with anyio.create_task_group() as group:
        for ids in (["a", "b"], ["b", "c"], ["d"]):
            group.start_soon(wait, *ids)
    assert {"a": "unavailable", "b": "unavailable"} == get_results(delivered["a"])
    assert {"b": "unavailable", "c": "unavailable"} == get_results(delivered["b"])
    assert {"d": "unavailable"} == get_results(delivered["d"])
    assert "temporarily unavailable" in delivered["a"].failures["a"].message
    assert "could not be listed for 36" in delivered["a"].failures["a"].message
    # One message at the beginning, and one every ten minutes.
    assert len(caplog.records) in {6, 7}
    assert 3600 <= anyio.current_time() < 3600 + FAILED_INTERVALS[1] * (1 + JITTER) + LATENCY
    late = [at for at in server.listed_at if at > 300]
    assert all(later - at >= 45 for at, later in pairwise(late))
    assert len(late) > 40


@pytest.mark.parametrize(
    ("status", "kind"), [(401, "not_authenticated"), (403, "not_authorized"), (405, "bad_request")]
)
@in_virtual_time
async def test_refusal_of_the_first_list_is_reported_at_once(status: int, kind: str) -> None:
    server = Server({"a": always("Running")})
    server.fault = lambda: text("no", status)
    outcomes = await server.wait("a", "b c")
    assert {"a": kind, "b c": "invalid"} == get_results(outcomes)
    assert "no" == outcomes.failures["a"].message
    assert 1 == len(server.listed_at)


@pytest.mark.parametrize(("status", "kind"), [(401, "not_authenticated"), (403, "not_authorized")])
@in_virtual_time
async def test_refused_login_is_tried_again_for_its_time(status: int, kind: str) -> None:
    server = Server({"a": always("Running")})
    server.fault = lambda: text("no", status) if anyio.current_time() > 100 else None
    outcomes = await server.wait("a")
    assert {"a": kind} == get_results(outcomes)
    refused = [at for at in server.listed_at if at > 100]
    interval = REFUSED_INTERVAL * (1 + JITTER) + LATENCY
    assert all(later - at <= interval for at, later in pairwise(refused))
    assert 60 <= anyio.current_time() - refused[0] < 60 + interval


@in_virtual_time
async def test_login_that_is_accepted_again_loses_nothing() -> None:
    server = Server({"a": [(0, "Running"), (90, "Completed")]})
    server.fault = lambda: text("no", 401) if 30 < anyio.current_time() < 80 else None
    assert {"a": "Completed"} == get_results(await server.wait("a"))


@in_virtual_time
async def test_login_that_is_refused_late_in_an_outage_has_its_own_time() -> None:
    server = Server({"a": [(0, "Running"), (90, "Completed")]})

    def fault() -> Response | None:
        now = anyio.current_time()
        if 30 < now < 600:
            return build_unavailable()
        return text("no", 401) if now < 640 and now > 30 else None

    server.fault = fault
    assert {"a": "Completed"} == get_results(await server.wait("a"))


@pytest.mark.parametrize("status", [400, 404, 405, 500, 502])
@in_virtual_time
async def test_any_failure_after_a_success_is_an_outage(status: int) -> None:
    server = Server({"a": [(0, "Running"), (90, "Completed")]})
    server.fault = lambda: text("no", status) if 30 < anyio.current_time() < 2000 else None
    assert {"a": "Completed"} == get_results(await server.wait("a"))


@in_virtual_time
async def test_outages_are_measured_one_by_one() -> None:
    server = Server({"a": [(0, "Running"), (20_000, "Completed")]})
    server.fault = lambda: build_unavailable() if anyio.current_time() % 4000 > 1000 else None
    assert {"a": "Completed"} == get_results(await server.wait("a"))


@in_virtual_time
async def test_wait_that_begins_in_an_outage_has_its_own_time() -> None:
    server = Server({"a": always("Running"), "b": [(0, "Running"), (5000, "Completed")]})
    server.fault = lambda: build_unavailable() if 10 < anyio.current_time() < 5000 else None
    results: list[dict[str, Any]] = []

    async def wait_later() -> None:
        await anyio.sleep(3000)
        before = len(server.listed_at)
        with anyio.move_on_after(5):
            await server.wait("a", "b")
        assert before == len(server.listed_at)
        results.append(get_results(await server.wait("b")))

    async with anyio.create_task_group() as group:
        group.start_soon(wait_later)
        results.append(get_results(await server.wait("a")))
    assert [{"a": "unavailable"}, {"b": "Completed"}] == results


@in_virtual_time
async def test_progress_shows_an_outage() -> None:
    server = Server({"a": [(0, "Running"), (90, "Completed")]})
    server.fault = lambda: build_unavailable() if 30 < anyio.current_time() < 80 else None
    updates: list[kaleden.ProgressUpdate] = []
    await server.wait("a", progress=updates.append)
    outages = [update.outage for update in updates]
    assert (None, None) == (outages[0], outages[-1])
    shown = [each for each in outages if each is not None]
    assert 0 == shown[0] < shown[1] < shown[-1] <= 50
    assert "not listed for" in str(updates[outages.index(shown[-1])])


@in_virtual_time
async def test_next_list_waits_for_retry_after() -> None:
    server = Server({"a": always("Completed")})
    server.fault = lambda: build_unavailable(120) if len(server.listed_at) == 1 else None
    assert (await server.wait("a")).ok
    first, second = server.listed_at
    assert 120 + LATENCY == pytest.approx(second - first)


@in_virtual_time
async def test_lost_connection_is_tolerated() -> None:
    server = Server({"a": [(0, "Running"), (20, "Completed")]})

    def lose_some() -> Response | None:
        if len(server.listed_at) % 2:
            raise TransportError(FailureKind.CONNECTION_LOST, "reset", sent=True)
        return None

    server.fault = lose_some
    assert {"a": "Completed"} == get_results(await server.wait("a"))


# --- callbacks -----------------------------------------------------------------------------------


@in_virtual_time
async def test_progress_is_called_for_each_change() -> None:
    delivered: list[tuple[float, kaleden.ProgressUpdate]] = []
    server = Server(
        {
            "a": [(0, "Pending"), (30, "Running"), (90, "Completed")],
            "b": [(0, "Pending"), (60, "Failed")],
            "c": [(0, "Running"), (120, None)],
        }
    )
    await server.wait(
        "a", "b", "c", "d", progress=lambda counts: delivered.append((anyio.current_time(), counts))
    )
    assert [
        {SessionStatus.PENDING: 2, SessionStatus.RUNNING: 1},
        {SessionStatus.PENDING: 2, SessionStatus.RUNNING: 1},  # and one was never listed
        {SessionStatus.PENDING: 1, SessionStatus.RUNNING: 2},
        {SessionStatus.FAILED: 1, SessionStatus.RUNNING: 2},
        {SessionStatus.FAILED: 1, SessionStatus.RUNNING: 1, SessionStatus.COMPLETED: 1},
        {SessionStatus.FAILED: 1, SessionStatus.COMPLETED: 1},
    ] == [tally for _, tally in delivered]
    assert [0, 1, 1, 2, 3, 4] == [tally.done for _, tally in delivered]
    assert [0, 1, 1, 1, 1, 2] == [tally.failed for _, tally in delivered]
    assert {("wait", 4)} == {(tally.operation, tally.expected) for _, tally in delivered}
    assert all(
        0 <= at - due <= LONGEST + 1.5
        for (at, _), due in zip(delivered, [0, 1, 30, 60, 90, 120], strict=True)
    )


@in_virtual_time
async def test_exception_of_a_callback_is_raised_unchanged() -> None:
    def broken(_: object) -> bool:
        raise ZeroDivisionError("mine")

    server = Server({"a": always("Running")})
    options: list[dict[str, Any]] = [{"until": broken}, {"progress": broken}]
    for option in options:
        with pytest.raises(ZeroDivisionError, match="mine"):
            await server.wait("a", **option)
        with pytest.raises(ZeroDivisionError, match="mine"):
            async with server.waiter.stream(["a"], **option) as outcomes:
                await anext(outcomes)
    assert (0, 0) == (server.engine.limiter.statistics().in_flight, server.transport.in_flight)


@in_virtual_time
async def test_retry_waits_for_the_same_condition() -> None:
    server = Server({"a": [(0, "Running"), (5, "Failed")], "b": always("Completed")})
    outcomes = await server.wait("a", "b", until="Completed")
    assert {"a": "wrong_state", "b": "Completed"} == get_results(outcomes)
    server.timelines["a"] = always("Completed")
    again = await outcomes.retry_failed()
    assert {"a": "Completed", "b": "Completed"} == get_results(again)
    assert ["a", "b"] == again.ids


# --- streams -------------------------------------------------------------------------------------


@in_virtual_time
async def test_stream_delivers_each_outcome_within_an_interval() -> None:
    ends = {"a": 70.0, "b": 20.0, "c": 45.0}
    server = Server({key: [(0, "Running"), (end, "Completed")] for key, end in ends.items()})
    delivered = []
    async with server.waiter.stream([*ends, "no id"]) as outcomes:
        async for outcome in outcomes:
            delivered.append(outcome.key)
            if outcome.ok:
                assert 0 <= anyio.current_time() - ends[outcome.key] <= LONGEST + 2 * LATENCY
    assert ["no id", "b", "c", "a"] == delivered


@in_virtual_time
async def test_leaving_a_stream_early_stops_the_polls() -> None:
    server = Server({"a": always("Running"), "b": always("Completed")})
    async with server.waiter.stream(["a", "b"]) as outcomes:
        assert "b" == (await anext(outcomes)).key
    with pytest.raises(ZeroDivisionError, match="mine"):
        async with server.waiter.stream(["a"]):
            await anyio.sleep(1)
            raise ZeroDivisionError("mine")
    listed = len(server.listed_at)
    await anyio.sleep(100)
    assert listed == len(server.listed_at)


@in_virtual_time
async def test_slow_consumer_of_a_stream_does_not_delay_other_waits() -> None:
    server = Server({f"s{n}": [(0, "Running"), (10, "Completed")] for n in range(5)})
    taken = []

    async def slowly() -> None:
        async with server.waiter.stream(server.timelines) as outcomes:
            async for outcome in outcomes:
                taken.append(outcome.key)
                await anyio.sleep(100)

    async with anyio.create_task_group() as group:
        group.start_soon(slowly)
        assert (await server.wait(*server.timelines)).ok
        assert anyio.current_time() < 10 + LONGEST
    assert sorted(server.timelines) == sorted(taken)


@in_virtual_time
async def test_wait_cancelled_at_any_step_leaves_no_request() -> None:
    server = Server({"a": [(0, "Running"), (8, "Completed")], "b": always("Completed")})

    async def consume() -> None:
        async with server.waiter.stream(["b", "a"]) as outcomes:
            async for _ in outcomes:
                await server.wait("b", "a")

    for step in range(150):
        async with anyio.create_task_group() as group:
            group.start_soon(consume)
            for _ in range(step):
                await checkpoint()
            group.cancel_scope.cancel()
        assert (0, 0) == (server.engine.limiter.statistics().in_flight, server.transport.in_flight)
    assert (await server.wait("a", "b")).ok


# --- a whole platform ----------------------------------------------------------------------------


@in_virtual_time
async def test_wait_returns_the_outcomes_of_a_batch_on_a_platform() -> None:
    transport = MemoryTransport(
        start_delay=lambda session: float(session.spec.name.removeprefix("fits-")),
        duration=30,
        fails=lambda session: session.spec.name == "fits-3",
    )
    async with transport, kaleden.AsyncSession(transport=transport) as session:
        created = await session.create("fits", "skaha/astroml:latest", cmd="env", replicas=5)
        started = await session.wait(created, {"Running"})
        assert created.ids == [info.id for info in started.values]
        before = transport.requests["list"]
        async with session.stream.wait(created, "Completed", pending_timeout=60) as ended:
            delivered = {outcome.key: outcome async for outcome in ended}
        assert [created.ids[2]] == [key for key, outcome in delivered.items() if not outcome.ok]
        assert transport.requests["list"] - before < 40 / (1 - JITTER)
        assert set(created.ids) == set(delivered)
        assert (0, 0) == (transport.requests["info"], transport.requests["events"])
        assert Outcomes.from_json(started.to_json()) == started


# --- a model -------------------------------------------------------------------------------------

# Long enough to be seen at any interval, also if the list is empty, and not believed at first.
STEP = 3 * LONGEST + LIMITS.settle
STATUSES = [*SessionStatus, None]


def predict_result(states: list[str | None], wanted: frozenset[str]) -> str | None:
    """Return the result for a session with *states*, each of which lasts long enough to be seen."""
    has_been_listed = False
    for state in states:
        if state is None:
            return "vanished" if has_been_listed else "not_found"
        has_been_listed = True
        if any(SessionStatus(state).matches(each) for each in wanted):
            return state
        if SessionStatus(state) in kaleden.TERMINAL_STATUSES:
            return "wrong_state"
    return None


@settings(max_examples=60, deadline=None)
@given(
    timelines=st.dictionaries(
        st.text("abcdefgh", min_size=1, max_size=3),
        st.lists(st.sampled_from(STATUSES), min_size=1, max_size=4),
        max_size=8,
    ),
    wanted=st.frozensets(st.sampled_from(sorted(SessionStatus)), min_size=1, max_size=4),
    backend=st.sampled_from(PLAIN_BACKENDS),
)
def test_outcomes_match_the_model(
    timelines: dict[str, list[str | None]], wanted: frozenset[str], backend: Any
) -> None:
    async def scenario() -> None:
        server = Server(
            {
                # At the end all sessions are deleted.
                key: [(n * STEP, state) for n, state in enumerate([*states, None])]
                for key, states in timelines.items()
            }
        )
        outcomes = await server.wait(*timelines, until=wanted)
        assert {
            key: predict_result([*states, None], wanted) for key, states in timelines.items()
        } == get_results(outcomes)
        assert list(timelines) == outcomes.ids
        assert [] == server.other_targets

    run_virtual(scenario, backend=backend)
