"""Tests of fault plans, on a `MemoryTransport`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import anyio
import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from kaleden import FailureKind, SessionSpec, _wire
from kaleden._http import TransportError
from kaleden._wire import Request, _requests, _responses
from kaleden.local import Platform, Settings
from kaleden.testing import REQUEST_KINDS, Fault, FaultKind, FaultPlan, MemoryTransport, run_virtual
from kaleden.testing._clock import Backend
from kaleden.testing._faults import FaultSchedule
from support import PLAIN_BACKENDS

[LAUNCH] = SessionSpec("fits", "skaha/astroml:latest", cmd="true").launches()
CREATE = _requests.build_create(LAUNCH)
LIST = _requests.build_list()


@frozen
class Seen:
    """The result of a request for the client, and its effect on the server."""

    result: int | FailureKind | None
    sent: bool
    body: bytes
    sessions: int
    seconds: float


def send(backend: Backend, request: Request, *faults: Fault, timeout: float = 100) -> Seen:
    """Send a request to a platform with these faults, with a time-out in seconds."""

    async def main() -> Seen:
        result: int | FailureKind | None = None
        sent, body = True, b""
        async with MemoryTransport(faults=FaultPlan(faults), latency=1) as transport:
            try:
                with anyio.move_on_after(timeout):
                    response = await transport.send(request)
                    result, body = response.status, response.body
            except TransportError as error:
                result, sent = error.kind, error.sent
            return Seen(result, sent, body, len(transport.sessions()), anyio.current_time())

    return run_virtual(main, backend=backend)


@pytest.mark.parametrize(
    ("trouble", "result", "sessions"),
    [
        ("refused", FailureKind.CONNECT_FAILED, 0),
        ("busy", 503, 0),
        ("reset-before", FailureKind.CONNECTION_LOST, 0),
        ("reset-after", FailureKind.CONNECTION_LOST, 1),
        ("error-before", 500, 0),
        ("error-after", 500, 1),
        ("stall", None, 0),
        ("stall-after", None, 1),
        ("half-body", FailureKind.CONNECTION_LOST, 1),
        ("wrong-length", FailureKind.CONNECTION_LOST, 1),
        ("slow", 200, 1),
        ("garbage", 200, 1),
        ("html", 200, 1),
        ("lie", 200, 0),
        ("delay", 200, 1),
        ("lag", 200, 1),
    ],
)
def test_fault_has_its_result_and_effect(
    backend: Backend, trouble: str, result: object, sessions: int
) -> None:
    seen = send(backend, CREATE, Fault(trouble, on="create"))

    assert (result, sessions) == (seen.result, seen.sessions)
    assert (trouble != "refused") is seen.sent


@pytest.mark.parametrize("trouble", ["garbage", "html", "lie"])
def test_invalid_response_is_not_parsed_as_id(backend: Backend, trouble: str) -> None:
    seen = send(backend, CREATE, Fault(trouble))

    with pytest.raises(_wire.MalformedResponse):
        _responses.parse_create(_wire.Response(200, {}, seen.body))


@pytest.mark.parametrize("status", [429, 503])
def test_busy_fault_sets_retry_after(backend: Backend, status: int) -> None:
    async def main() -> _wire.ErrorResponse | None:
        plan = FaultPlan([Fault("busy", seconds=30, status=status)])
        async with MemoryTransport(faults=plan) as transport:
            return _wire.classify(await transport.send(LIST))

    refusal = run_virtual(main, backend=backend)

    assert refusal is not None
    assert (FailureKind.UNAVAILABLE, 30) == (refusal.kind, refusal.retry_after)


def test_delay_adds_its_seconds(backend: Backend) -> None:
    assert pytest.approx(8) == send(backend, LIST, Fault("delay", seconds=7)).seconds


def test_jitter_varies_within_its_bounds(backend: Backend) -> None:
    async def main() -> list[float]:
        plan = FaultPlan([Fault("delay", seconds=7, jitter=3)])
        times = [0.0]
        async with MemoryTransport(faults=plan, latency=0) as transport:
            for _ in range(20):
                await transport.send(LIST)
                times.append(anyio.current_time())
        return [later - earlier for earlier, later in pairwise(times)]

    took = run_virtual(main, backend=backend)

    assert 7 <= min(took) < max(took) <= 10
    assert len(set(took)) > 10


@pytest.mark.parametrize(("size", "seconds"), [(0, 1.9), (1, 1.9), (4, 1.3), (100, 1.0)])
def test_slow_response_waits_for_each_piece(backend: Backend, size: int, seconds: float) -> None:
    # The response has nine bytes: the id and a newline.
    seen = send(backend, CREATE, Fault("slow", seconds=0.1, size=size))
    assert pytest.approx(seconds, abs=0.11) == seen.seconds


def test_fault_that_needs_a_connection_is_rejected() -> None:
    plan = FaultPlan([Fault("duplicate")])
    with pytest.raises(ValueError, match="duplicate"):
        MemoryTransport(faults=plan)
    transport = MemoryTransport()
    with pytest.raises(ValueError, match="duplicate"):
        transport.faults = plan


def test_plan_can_be_changed_while_in_use(backend: Backend) -> None:
    async def main() -> None:
        transport = MemoryTransport(latency=1)
        transport.faults = FaultPlan([Fault("error-before", nth=1)])
        async with transport:
            assert [500, 200] == [(await transport.send(LIST)).status for _ in range(2)]
            transport.faults = FaultPlan([Fault("error-before", nth=1), Fault("lag", seconds=50)])
            assert [500, 200] == [(await transport.send(LIST)).status for _ in range(2)]
            assert 200 == (await transport.send(CREATE)).status
            assert b"[]" == (await transport.send(LIST)).body
            transport.faults = FaultPlan()
            assert b"[]" != (await transport.send(LIST)).body

    run_virtual(main, backend=backend)


def test_settled_does_not_wait_for_stalled_request(backend: Backend) -> None:
    async def main() -> float:
        plan = FaultPlan([Fault("stall")])
        async with MemoryTransport(faults=plan, latency=0) as transport:
            with anyio.move_on_after(5):
                await transport.send(CREATE)
            await transport.settled()
            return anyio.current_time()

    assert 5 == run_virtual(main, backend=backend)


def test_lie_fault_reports_delete_without_deleting(backend: Backend) -> None:
    async def main() -> list[tuple[int, int]]:
        plan = FaultPlan([Fault("lie", on="destroy", nth=1)])
        seen: list[tuple[int, int]] = []
        async with MemoryTransport(faults=plan) as transport:
            session_id = _responses.parse_create(await transport.send(CREATE))
            for _ in range(2):
                response = await transport.send(_requests.build_destroy(session_id))
                seen.append((response.status, len(transport.sessions())))
        return seen

    assert [(200, 1), (200, 0)] == run_virtual(main, backend=backend)


def make_platform_with_random_ids() -> Platform:
    """Make a platform that draws its ids from the random source of the system."""
    return Platform(Settings(millicores=10**6, ram=2**40))


@pytest.mark.parametrize("make_platform", [lambda: None, make_platform_with_random_ids])
def test_lag_fault_lists_an_earlier_state(
    backend: Backend, make_platform: Callable[[], Platform | None]
) -> None:
    async def main() -> list[tuple[float, list[str]]]:
        plan = FaultPlan([Fault("lag", on="list", seconds=10)])
        seen: list[tuple[float, list[str]]] = []
        transport = MemoryTransport(
            make_platform(), faults=plan, latency=0, start_delay=5, duration=20
        )
        async with transport:
            session_id = _responses.parse_create(await transport.send(CREATE))
            for time in (0, 9, 10, 14, 15, 34, 35, 40, 49, 50):
                await anyio.sleep(time - anyio.current_time())
                if time == 40:
                    await transport.send(_requests.build_destroy(session_id))
                listing = _responses.parse_list(await transport.send(LIST))
                seen.append((time, [str(session.status) for session in listing.sessions]))
        return seen

    assert [
        (0, []),
        (9, []),
        (10, ["Pending"]),
        (14, ["Pending"]),
        (15, ["Running"]),
        (34, ["Running"]),
        (35, ["Completed"]),
        (40, ["Completed"]),
        (49, ["Completed"]),
        (50, []),
    ] == run_virtual(main, backend=backend)


def test_lag_fault_lists_sessions_removed_since(backend: Backend) -> None:
    async def main() -> list[int]:
        plan = FaultPlan([Fault("lag", on="list", seconds=600)])
        seen: list[int] = []
        async with MemoryTransport(faults=plan, latency=0, start_delay=0, duration=0) as transport:
            await transport.send(CREATE)
            for seconds in (3599, 599, 2):
                await anyio.sleep(seconds)
                listing = _responses.parse_list(await transport.send(LIST))
                seen.append(len(listing.sessions))
        return seen

    assert [1, 1, 0] == run_virtual(main, backend=backend)


def test_lag_fault_does_not_affect_create(backend: Backend) -> None:
    assert 1 == send(backend, CREATE, Fault("lag", seconds=60)).sessions


def draw_faults(plan: FaultPlan, kinds: Sequence[str]) -> list[list[FaultKind]]:
    schedule = FaultSchedule(plan)
    return [list(schedule.draw(kind)) for kind in kinds]


@pytest.mark.parametrize(
    ("fault", "selected"),
    [
        (Fault("stall"), [0, 1, 2, 3, 4]),
        (Fault("stall", on="list"), [1, 3, 4]),
        (Fault("stall", on="list", nth=2), [3]),
        (Fault("stall", on="list", nth=[1, 3]), [1, 4]),
        (Fault("stall", nth=range(2, 5)), [1, 2, 3]),
        (Fault("stall", on="renew"), []),
        (Fault("stall", probability=0), []),
    ],
)
def test_fault_selects_requests_by_kind_and_number(fault: Fault, selected: list[int]) -> None:
    kinds = ["create", "list", "create", "list", "list"]

    troubles = draw_faults(FaultPlan([fault]), kinds)

    assert selected == [i for i, each in enumerate(troubles) if each == [FaultKind.STALL]]


def test_same_seed_draws_same_faults_at_given_probability() -> None:
    faults = [Fault("refused", probability=0.25)]
    kinds = ["create"] * 1000

    first, again, other = (draw_faults(FaultPlan(faults, seed), kinds) for seed in (1, 1, 2))

    assert first == again != other
    assert 200 < sum(map(len, first)) < 300


def test_first_of_two_faults_of_one_kind_applies(backend: Backend) -> None:
    faults = [Fault("delay", seconds=3), Fault("delay", seconds=50)]
    assert pytest.approx(4) == send(backend, LIST, *faults).seconds


def test_earlier_fault_hides_later_one(backend: Backend) -> None:
    seen = send(backend, CREATE, Fault("html"), Fault("reset-after"), Fault("error-before"))
    assert (FailureKind.CONNECTION_LOST, 0) == (seen.result, seen.sessions)


def test_one_plan_serves_several_transports(backend: Backend) -> None:
    fault = Fault("refused", nth=1)
    first, second = send(backend, LIST, fault), send(backend, LIST, fault)
    assert FailureKind.CONNECT_FAILED == first.result == second.result


@pytest.mark.parametrize(
    "make",
    [
        lambda: Fault("typo"),
        lambda: Fault("stall", on="typo"),
        lambda: Fault("stall", probability=1.1),
        lambda: Fault("stall", probability=-0.1),
        lambda: Fault("delay", seconds=-1),
        lambda: Fault("delay", jitter=-1),
    ],
)
def test_fault_with_invalid_argument_is_rejected(make: Callable[[], Fault]) -> None:
    with pytest.raises(ValueError, match=r"typo|probability|seconds|jitter"):
        make()


plans = st.builds(
    FaultPlan,
    st.lists(
        st.builds(
            Fault,
            st.sampled_from(sorted(set(FaultKind) - {FaultKind.DUPLICATE})),
            st.none() | st.sampled_from(REQUEST_KINDS),
            probability=st.sampled_from([0.3, 1.0]),
            seconds=st.sampled_from([0.0, 3.0, 40.0]),
        ),
        max_size=4,
    ),
    st.integers(0, 9),
)


@given(
    plan=plans,
    timeout=st.sampled_from([0.05, 0.3, 1.0, 100.0]),
    backend=st.sampled_from(PLAIN_BACKENDS),
)
def test_no_fault_creates_more_sessions_than_requested(
    plan: FaultPlan, timeout: float, backend: Backend
) -> None:
    async def create(transport: MemoryTransport, seen: list[bool]) -> None:
        may_be_done = True
        try:
            with anyio.move_on_after(timeout):
                await transport.send(CREATE)
        except TransportError as error:
            may_be_done = error.sent
        seen.append(may_be_done)

    async def main() -> None:
        seen: list[bool] = []
        async with MemoryTransport(faults=plan) as transport:
            async with anyio.create_task_group() as group:
                for _ in range(5):
                    group.start_soon(partial(create, transport, seen))
            await transport.settled()
            assert 5 == len(seen)
            assert transport.created["fits"] == len(transport.sessions()) <= sum(seen)
            assert 0 == transport.in_flight

    run_virtual(main, backend=backend)


@pytest.mark.parametrize("nth", [0, -1, [1, 0]])
def test_nth_below_one_is_rejected(nth: int | list[int]) -> None:
    with pytest.raises(ValueError, match="counts requests from 1"):
        Fault("stall", nth=nth)


def test_unknown_kind_is_rejected_with_list_of_kinds() -> None:
    with pytest.raises(ValueError, match=r"^no kind of request: 'creat'; .* create, destroy, list"):
        Fault("stall", "creat")
    with pytest.raises(ValueError, match=r"^no kind of fault: 'rest'; .* delay, refused, busy,"):
        Fault("rest")


@pytest.mark.parametrize("trouble", FaultKind)
def test_fault_kind_docstring_describes_each_kind(trouble: FaultKind) -> None:
    # Python 3.13 and later strip the indentation of docstrings.
    assert f'    {trouble.name}: "{trouble}". ' in inspect.cleandoc(str(FaultKind.__doc__))
