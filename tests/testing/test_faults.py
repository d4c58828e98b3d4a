"""What goes wrong goes wrong as planned."""

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
from kaleden._wire import Request
from kaleden.local import Platform, Settings
from kaleden.testing import REQUEST_KINDS, Fault, FaultKind, FaultPlan, MemoryTransport, run_virtual
from kaleden.testing._clock import Backend
from kaleden.testing._faults import FaultSchedule
from support import PLAIN_BACKENDS

[LAUNCH] = SessionSpec("fits", "skaha/astroml:latest", cmd="true").launches()
CREATE = _wire.build_create(LAUNCH)
LIST = _wire.build_list()


@frozen
class Seen:
    """What a client sees of a request, and what the server has done."""

    result: int | FailureKind | None
    sent: bool
    body: bytes
    sessions: int
    seconds: float


def send(backend: Backend, request: Request, *faults: Fault, patience: float = 100) -> Seen:
    """Send a request to a platform with these faults."""

    async def main() -> Seen:
        result: int | FailureKind | None = None
        sent, body = True, b""
        async with MemoryTransport(faults=FaultPlan(faults), latency=1) as transport:
            try:
                with anyio.move_on_after(patience):
                    reply = await transport.send(request)
                    result, body = reply.status, reply.body
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
def test_each_trouble_is_what_it_says(
    backend: Backend, trouble: str, result: object, sessions: int
) -> None:
    seen = send(backend, CREATE, Fault(trouble, on="create"))

    assert (result, sessions) == (seen.result, seen.sessions)
    assert (trouble != "refused") is seen.sent


@pytest.mark.parametrize("trouble", ["garbage", "html", "lie"])
def test_a_reply_that_is_none_cannot_be_taken_for_an_id(backend: Backend, trouble: str) -> None:
    seen = send(backend, CREATE, Fault(trouble))

    with pytest.raises(_wire.MalformedResponse):
        _wire.parse_create(_wire.Response(200, {}, seen.body))


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_says_when_to_come_back(backend: Backend, status: int) -> None:
    async def main() -> _wire.ErrorResponse | None:
        plan = FaultPlan([Fault("busy", seconds=30, status=status)])
        async with MemoryTransport(faults=plan) as transport:
            return _wire.classify(await transport.send(LIST))

    refusal = run_virtual(main, backend=backend)

    assert refusal is not None
    assert (FailureKind.UNAVAILABLE, 30) == (refusal.kind, refusal.retry_after)


def test_a_delay_takes_its_seconds_more(backend: Backend) -> None:
    assert pytest.approx(8) == send(backend, LIST, Fault("delay", seconds=7)).seconds


def test_a_jitter_is_within_its_bounds_and_not_always_the_same(backend: Backend) -> None:
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
def test_a_slow_reply_takes_its_time_for_each_piece(
    backend: Backend, size: int, seconds: float
) -> None:
    # The id, and a newline: nine bytes.
    seen = send(backend, CREATE, Fault("slow", seconds=0.1, size=size))
    assert pytest.approx(seconds, abs=0.11) == seen.seconds


def test_what_needs_a_wire_is_refused() -> None:
    plan = FaultPlan([Fault("duplicate")])
    with pytest.raises(ValueError, match="duplicate"):
        MemoryTransport(faults=plan)
    transport = MemoryTransport()
    with pytest.raises(ValueError, match="duplicate"):
        transport.faults = plan


def test_the_plan_can_be_changed_on_the_way(backend: Backend) -> None:
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


def test_a_stalled_request_is_no_business_that_is_waited_for(backend: Backend) -> None:
    async def main() -> float:
        plan = FaultPlan([Fault("stall")])
        async with MemoryTransport(faults=plan, latency=0) as transport:
            with anyio.move_on_after(5):
                await transport.send(CREATE)
            await transport.settled()
            return anyio.current_time()

    assert 5 == run_virtual(main, backend=backend)


def test_a_delete_may_lie(backend: Backend) -> None:
    async def main() -> list[tuple[int, int]]:
        plan = FaultPlan([Fault("lie", on="destroy", nth=1)])
        seen: list[tuple[int, int]] = []
        async with MemoryTransport(faults=plan) as transport:
            session_id = _wire.parse_create(await transport.send(CREATE))
            for _ in range(2):
                reply = await transport.send(_wire.build_destroy(session_id))
                seen.append((reply.status, len(transport.sessions())))
        return seen

    assert [(200, 1), (200, 0)] == run_virtual(main, backend=backend)


def own_platform() -> Platform:
    """A platform whose ids come from the system."""
    return Platform(Settings(millicores=10**6, ram=2**40))


@pytest.mark.parametrize("make_platform", [lambda: None, own_platform])
def test_a_list_may_show_the_past(
    backend: Backend, make_platform: Callable[[], Platform | None]
) -> None:
    async def main() -> list[tuple[float, list[str]]]:
        plan = FaultPlan([Fault("lag", on="list", seconds=10)])
        seen: list[tuple[float, list[str]]] = []
        transport = MemoryTransport(
            make_platform(), faults=plan, latency=0, start_delay=5, duration=20
        )
        async with transport:
            session_id = _wire.parse_create(await transport.send(CREATE))
            for time in (0, 9, 10, 14, 15, 34, 35, 40, 49, 50):
                await anyio.sleep(time - anyio.current_time())
                if time == 40:
                    await transport.send(_wire.build_destroy(session_id))
                listing = _wire.parse_list(await transport.send(LIST))
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


def test_in_the_past_a_session_is_not_forgotten_yet(backend: Backend) -> None:
    async def main() -> list[int]:
        plan = FaultPlan([Fault("lag", on="list", seconds=600)])
        seen: list[int] = []
        async with MemoryTransport(faults=plan, latency=0, start_delay=0, duration=0) as transport:
            await transport.send(CREATE)
            for seconds in (3599, 599, 2):
                await anyio.sleep(seconds)
                listing = _wire.parse_list(await transport.send(LIST))
                seen.append(len(listing.sessions))
        return seen

    assert [1, 1, 0] == run_virtual(main, backend=backend)


def test_who_writes_does_not_write_into_the_past(backend: Backend) -> None:
    assert 1 == send(backend, CREATE, Fault("lag", seconds=60)).sessions


def befallen(plan: FaultPlan, kinds: Sequence[str]) -> list[list[FaultKind]]:
    fate = FaultSchedule(plan)
    return [list(fate.draw(kind)) for kind in kinds]


@pytest.mark.parametrize(
    ("fault", "struck"),
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
def test_a_fault_befalls_whom_it_is_meant_for(fault: Fault, struck: list[int]) -> None:
    kinds = ["create", "list", "create", "list", "list"]

    troubles = befallen(FaultPlan([fault]), kinds)

    assert struck == [i for i, each in enumerate(troubles) if each == [FaultKind.STALL]]


def test_chance_is_the_same_for_the_same_seed_and_about_as_likely_as_said() -> None:
    faults = [Fault("refused", probability=0.25)]
    kinds = ["create"] * 1000

    first, again, other = (befallen(FaultPlan(faults, seed), kinds) for seed in (1, 1, 2))

    assert first == again != other
    assert 200 < sum(map(len, first)) < 300


def test_of_the_same_trouble_the_first_in_the_plan_counts(backend: Backend) -> None:
    faults = [Fault("delay", seconds=3), Fault("delay", seconds=50)]
    assert pytest.approx(4) == send(backend, LIST, *faults).seconds


def test_what_happens_first_hides_what_would_happen_later(backend: Backend) -> None:
    seen = send(backend, CREATE, Fault("html"), Fault("reset-after"), Fault("error-before"))
    assert (FailureKind.CONNECTION_LOST, 0) == (seen.result, seen.sessions)


def test_a_plan_serves_for_many_worlds(backend: Backend) -> None:
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
def test_a_fault_that_could_not_happen_is_refused(make: Callable[[], Fault]) -> None:
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
    patience=st.sampled_from([0.05, 0.3, 1.0, 100.0]),
    backend=st.sampled_from(PLAIN_BACKENDS),
)
def test_no_fault_makes_more_than_was_asked_for(
    plan: FaultPlan, patience: float, backend: Backend
) -> None:
    async def create(transport: MemoryTransport, seen: list[bool]) -> None:
        may_be_done = True
        try:
            with anyio.move_on_after(patience):
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
def test_a_request_that_cannot_come_is_refused(nth: int | list[int]) -> None:
    with pytest.raises(ValueError, match="counts requests from 1"):
        Fault("stall", nth=nth)


def test_a_kind_or_a_trouble_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"^no kind of request: 'creat'; .* create, destroy, list"):
        Fault("stall", "creat")
    with pytest.raises(ValueError, match=r"^no trouble: 'rest'; .* delay, refused, busy,"):
        Fault("rest")


@pytest.mark.parametrize("trouble", FaultKind)
def test_help_tells_what_each_trouble_does(trouble: FaultKind) -> None:
    # Python 3.13 strips the indentation of a docstring, and those before do not.
    assert f'    {trouble.name}: "{trouble}". ' in inspect.cleandoc(str(FaultKind.__doc__))
