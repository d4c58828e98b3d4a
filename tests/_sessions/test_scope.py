"""Scopes: blocks of code that own sessions and destroy them at the end."""

from __future__ import annotations

import copy
import logging
import pickle
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from support import IMAGE, PLAIN_BACKENDS

pytest.importorskip("anycorn")

import kaleden
from kaleden import FailureKind, LedgerError, ScopeError
from kaleden._sessions._ledger import _file
from kaleden._sessions._ledger._file import read_ledger
from kaleden._wire import Request, Response
from kaleden.testing import Fault, FaultKind, FaultPlan, MemoryTransport, run_virtual
from kaleden.testing._virtual_time import VirtualTime

Scenario = Callable[[MemoryTransport, kaleden.AsyncSession], Awaitable[None]]


@asynccontextmanager
async def open_world(
    *faults: Fault, session: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[tuple[MemoryTransport, kaleden.AsyncSession]]:
    async with (
        MemoryTransport(faults=FaultPlan(faults), **options) as transport,
        kaleden.AsyncSession(transport=transport, **(session or {})) as client,
    ):
        yield transport, client


@pytest.fixture(params=PLAIN_BACKENDS)
def play(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Run a scenario in virtual time, on a platform with faults."""

    def play(scenario: Scenario, *faults: Fault, **options: Any) -> None:
        async def main() -> None:
            async with open_world(*faults, **options) as (transport, client):
                await scenario(transport, client)

        run_virtual(main, backend=request.param)

    return play


Play = Callable[..., None]


def test_sessions_of_a_scope_are_destroyed_at_its_end(play: Play) -> None:
    async def scenario(transport: MemoryTransport, session: kaleden.AsyncSession) -> None:
        async with session.scope() as scope:
            created = await scope.create("fits", IMAGE, replicas=5)
            assert [f"fits-{n}" for n in range(1, 6)] == [outcome.key for outcome in created]
            assert set(created.ids) == set(scope.ids)
            assert 5 == len(transport.sessions())
            assert "<Scope owns 5, 0 launching>" == repr(scope)
        assert [] == transport.sessions()
        assert scope.error is None
        assert "<Scope owns 0, 0 launching (closed)>" == repr(scope)

    play(scenario)


def test_names_end_in_a_unique_token(play: Play) -> None:
    async def scenario(transport: MemoryTransport, session: kaleden.AsyncSession) -> None:
        async with session.scope() as scope:
            await scope.create("x" * 52, IMAGE, replicas=2)
            names = [name for name in transport.created if name.startswith("x" * 52)]
            assert {63} == {len(name) for name in names}
            assert 2 == len({name[-8:] for name in names})
            with pytest.raises(kaleden.InvalidRequest, match="63"):
                await scope.create("x" * 55, IMAGE)

    play(scenario)


def test_exception_of_the_block_is_raised_unchanged_after_the_clean_up(play: Play) -> None:
    async def scenario(transport: MemoryTransport, session: kaleden.AsyncSession) -> None:
        error = ExceptionGroup("mine", [ValueError("inner")])
        with pytest.raises(ExceptionGroup, match="mine") as caught:
            async with session.scope() as scope:
                await scope.create("fits", IMAGE)
                raise error
        assert error is caught.value
        assert not hasattr(error, "__notes__")
        assert [] == transport.sessions()

    play(scenario)


def test_deadline_during_a_launch_leaves_no_session(play: Play) -> None:
    async def scenario(transport: MemoryTransport, session: kaleden.AsyncSession) -> None:
        for tenths in range(12):
            with anyio.move_on_after(tenths / 10):
                async with session.scope() as scope:
                    await scope.create("fits", IMAGE, replicas=20)
            await transport.settled()
            assert [] == transport.sessions()
            assert scope.error is None

    play(scenario)


def test_released_sessions_survive_and_adopted_ones_are_destroyed(play: Play) -> None:
    async def scenario(transport: MemoryTransport, session: kaleden.AsyncSession) -> None:
        before = await session.create("older", IMAGE, replicas=2)
        async with session.scope() as scope:
            created = await scope.create("fits", IMAGE, replicas=3)
            await scope.release(created.ids[0])
            await scope.adopt(before)
            await scope.release("unknown1")
            assert {*created.ids[1:], *before.ids} == set(scope.ids)
        assert [created.ids[0]] == [session.id for session in transport.sessions()]

    play(scenario)


@pytest.mark.parametrize("fails", [False, True])
def test_on_success_release_keeps_sessions_unless_the_block_fails(play: Play, fails: bool) -> None:
    async def scenario(transport: MemoryTransport, session: kaleden.AsyncSession) -> None:
        try:
            async with session.scope(on_success="release") as scope:
                await scope.create("fits", IMAGE, replicas=3)
                if fails:
                    raise ValueError("mine")  # noqa: TRY301  # the test needs an exception of the block
        except ValueError:
            assert fails
        assert (0 if fails else 3) == len(transport.sessions())

    play(scenario)


def test_scopes_nest_and_work_on_an_exit_stack(play: Play) -> None:
    async def scenario(transport: MemoryTransport, session: kaleden.AsyncSession) -> None:
        async with AsyncExitStack() as stack:
            outer = await stack.enter_async_context(session.scope())
            await outer.create("outer", IMAGE)
            async with session.scope() as inner:
                await inner.create("inner", IMAGE, replicas=2)
            assert outer.ids == [session.id for session in transport.sessions()]
        assert [] == transport.sessions()

    play(scenario)


def test_other_tasks_can_launch_until_the_block_ends(play: Play) -> None:
    async def scenario(transport: MemoryTransport, session: kaleden.AsyncSession) -> None:
        refused = 0

        async def launch(scope: kaleden.Scope) -> None:
            nonlocal refused
            with pytest.raises(kaleden.ScopeClosed):
                while True:
                    await scope.create("concurrent", IMAGE, replicas=3)
            refused += 1

        async with anyio.create_task_group() as group:
            async with session.scope() as scope:
                for _ in range(3):
                    group.start_soon(launch, scope)
                await anyio.sleep(5)
                assert scope.ids
        assert 3 == refused
        await transport.settled()
        assert [] == transport.sessions()
        with pytest.raises(kaleden.ScopeClosed):
            await scope.adopt("abc")

    play(scenario)


@pytest.mark.parametrize(
    "fault",
    [FaultKind.RESET_AFTER, FaultKind.ERROR_AFTER, FaultKind.HALF_BODY, FaultKind.STALL_AFTER],
    ids=str,
)
def test_launch_with_a_lost_response_is_found_by_its_token(play: Play, fault: FaultKind) -> None:
    async def scenario(transport: MemoryTransport, session: kaleden.AsyncSession) -> None:
        async with session.scope() as scope:
            created = await scope.create("fits", IMAGE, replicas=5)
            assert created.ok
            assert 5 == len(transport.sessions())
        assert {1} == set(transport.created.values())
        assert [] == transport.sessions()

    play(scenario, Fault(fault, "create", nth=2), session={"create_timeout": 20})


@pytest.mark.parametrize(
    ("fault", "kind", "may_appear"),
    [
        (FaultKind.RESET_BEFORE, FailureKind.UNKNOWN_EFFECT, True),
        (FaultKind.STALL, FailureKind.UNKNOWN_EFFECT, True),
        (FaultKind.ERROR_BEFORE, FailureKind.UNKNOWN_EFFECT, False),
        (FaultKind.REFUSED, FailureKind.CONNECT_FAILED, False),
        (FaultKind.BUSY, FailureKind.UNAVAILABLE, False),
    ],
    ids=str,
)
def test_launch_that_made_no_session_is_reported_and_never_repeated(
    play: Play, fault: FaultKind, kind: FailureKind, may_appear: bool
) -> None:
    async def scenario(transport: MemoryTransport, session: kaleden.AsyncSession) -> None:
        error: ScopeError | None = None
        try:
            async with session.scope(grace=5) as scope:
                created = await scope.create("fits", IMAGE, replicas=5)
                assert {"fits-2": kind} == {k: f.kind for k, f in created.failures.items()}
                assert 5 == transport.requests["create"]
        except ScopeError as caught:
            error = caught
        assert [] == transport.sessions()
        # Without a response, the session may still appear when the scope ends.
        assert may_appear == (error is not None)
        if error is not None:
            assert () == error.survivors
            assert ["fits-2"] == [name[:6] for name in error.launches]
            assert error is scope.error

    one_by_one = {"create_concurrency": 1, "create_timeout": 20, "retry": None}
    play(scenario, Fault(fault, "create", nth=2), session=one_by_one)


def test_failed_launches_can_be_retried_in_the_scope(play: Play) -> None:
    async def scenario(transport: MemoryTransport, session: kaleden.AsyncSession) -> None:
        async with session.scope() as scope:
            created = await scope.create("fits", IMAGE, replicas=5)
            assert ["fits-2"] == list(created.failures)
            created = await created.retry_failed()
            assert created.ok
            assert set(created.ids) == set(scope.ids)
        assert [] == transport.sessions()

    one_by_one = {"create_concurrency": 1, "retry": None}
    play(scenario, Fault(FaultKind.REFUSED, "create", nth=2), session=one_by_one)


def test_survivors_are_named_in_scope_error(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(transport: MemoryTransport, session: kaleden.AsyncSession) -> None:
        with pytest.raises(ScopeError, match="may be left") as caught:
            async with session.scope(grace=10) as scope:
                created = await scope.create("fits", IMAGE, replicas=3)
        assert set(created.ids) == set(caught.value.survivors)
        assert {s.id for s in transport.sessions()} == set(caught.value.survivors)
        assert caught.value is scope.error

    play(scenario, Fault(FaultKind.LIE, "destroy", probability=1), duration=10**6)
    assert "may be left" in caplog.text


def test_survivors_are_noted_on_the_exception_of_the_block(play: Play) -> None:
    async def scenario(_: MemoryTransport, session: kaleden.AsyncSession) -> None:
        with pytest.raises(ValueError, match="mine") as caught:
            async with session.scope(grace=10) as scope:
                await scope.create("fits", IMAGE)
                raise ValueError("mine")
        assert [str(scope.error)] == caught.value.__notes__
        with anyio.CancelScope() as cancelled:
            async with session.scope(grace=10) as scope:
                await scope.create("fits", IMAGE)
                cancelled.cancel()
                await checkpoint()
        assert cancelled.cancelled_caught
        assert isinstance(scope.error, ScopeError)

    play(scenario, Fault(FaultKind.LIE, "destroy", probability=1), duration=10**6)


@pytest.mark.parametrize("deadline", [0.05, 0.3, 5])
def test_scope_ends_within_the_grace_period_if_the_server_stalls(
    play: Play, deadline: float
) -> None:
    async def scenario(_: MemoryTransport, session: kaleden.AsyncSession) -> None:
        with anyio.CancelScope(deadline=deadline):
            async with session.scope(grace=30) as scope:
                await scope.create("fits", IMAGE, replicas=20)
        assert anyio.current_time() <= deadline + 30 + 1
        assert isinstance(scope.error, ScopeError)
        assert 8 == len(scope.error.launches)
        assert 0 == session.statistics().limiter.in_flight

    play(scenario, Fault(FaultKind.STALL, probability=1))


def test_long_clean_up_is_logged(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "kaleden")

    async def scenario(_: MemoryTransport, session: kaleden.AsyncSession) -> None:
        async with session.scope() as scope:
            await scope.create("fits", IMAGE, replicas=98)

    play(scenario, latency={"destroy": 3.0})
    assert "ending 98 sessions, up to 45 seconds" in caplog.text
    caplog.clear()
    play(scenario)
    assert "" == caplog.text


def test_plain_create_finds_a_lost_launch_among_new_sessions(play: Play) -> None:
    async def scenario(transport: MemoryTransport, session: kaleden.AsyncSession) -> None:
        older = await session.create("fits", IMAGE, replicas=3)
        created = await session.create("fits", IMAGE, replicas=3)
        assert created.ok
        assert set() == set(older.ids) & set(created.ids)
        assert 6 == len(transport.sessions())

    play(scenario, Fault(FaultKind.RESET_AFTER, "create", nth=5))


def test_creates_that_outlive_their_caller_keep_their_slots(play: Play) -> None:
    async def scenario(transport: MemoryTransport, session: kaleden.AsyncSession) -> None:
        async with session.scope() as scope:
            for _ in range(5):
                with anyio.move_on_after(0.1):
                    await scope.create("fits", IMAGE, replicas=20)
            assert transport.max_in_flight <= 4
        await transport.settled()
        assert [] == transport.sessions()

    play(scenario, session={"concurrency": 4, "create_concurrency": 4})


@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
@pytest.mark.parametrize(("grace", "delay"), [(30, 0), (30, 5), (3, 5), (0.001, 1)])
def test_concurrent_launch_at_the_end_is_destroyed_or_named(
    backend: Any, grace: float, delay: float
) -> None:
    async def main(steps: int) -> None:
        slow = Fault(FaultKind.DELAY, "create", seconds=delay)
        async with open_world(slow, duration=10**6) as (transport, session):

            async def launch_concurrently() -> None:
                with suppress(kaleden.ScopeClosed):
                    await scope.create("fits", IMAGE, replicas=2)

            scope = session.scope(grace=grace)
            left = 0.0
            with suppress(ScopeError):
                async with anyio.create_task_group() as group:
                    with suppress(ScopeError):
                        async with scope:
                            group.start_soon(launch_concurrently)
                            for _ in range(steps):
                                await checkpoint()
                            left = anyio.current_time()
                    assert anyio.current_time() <= left + grace + 1
            await transport.settled()
            alive = {session.id: session.spec.name for session in transport.sessions()}
            reported = scope.error or ScopeError(())
            assert all(k in reported.survivors or n in reported.launches for k, n in alive.items())

    for seed in range(4):
        for steps in range(14):
            run_virtual(main, steps, backend=backend, seed=seed)


def test_create_that_gets_its_slot_at_its_deadline_is_not_cut_off(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    def take_a_millisecond(clock: VirtualTime) -> bool:
        clock.now += 0.001
        return False

    async def scenario(transport: MemoryTransport, session: kaleden.AsyncSession) -> None:
        for steps in range(100):
            async with session.scope() as scope, anyio.create_task_group() as group:
                group.start_soon(scope.create, "first", IMAGE)
                await anyio.sleep(0.5)
                with anyio.move_on_after(0.5 + (steps + 0.5) / 4000):
                    await scope.create("second", IMAGE)
            assert scope.error is None
        assert [] == transport.sessions()
        # Some of the second creates were sent, and others were not.
        assert 100 < transport.requests["create"] < 200

    # Each iteration of the event loop takes a millisecond. Four deadlines pass in each of the
    # iterations around the release of the slot, since the order of trio's tasks is random.
    monkeypatch.setattr(VirtualTime, "run_tick_hook", take_a_millisecond)
    play(scenario, latency={"create": 1.0}, session={"create_concurrency": 1})


def test_interrupt_in_the_task_of_a_create_loses_no_session(play: Play) -> None:
    left: list[Any] = []

    async def scenario(transport: MemoryTransport, _: kaleden.AsyncSession) -> None:
        class InterruptedTransport:
            async def send(self, request: Request) -> Response:
                response = await transport.send(request)
                if request.method == "POST":
                    assert 1 == len(transport.sessions())
                    raise KeyboardInterrupt
                return response

        async with kaleden.AsyncSession(transport=InterruptedTransport()) as session:
            try:
                async with session.scope() as scope:
                    await scope.create("fits", IMAGE)
            finally:
                left.extend([transport.sessions(), scope.error])

    # asyncio ends its event loop at once, and cancels all tasks.
    with pytest.raises(KeyboardInterrupt):
        play(scenario, duration=10**6)
    assert [[], None] == left


def test_release_during_the_clean_up_is_refused(play: Play) -> None:
    async def scenario(transport: MemoryTransport, session: kaleden.AsyncSession) -> None:
        async def release(scope: kaleden.Scope) -> None:
            await anyio.sleep(0.1)
            with pytest.raises(kaleden.ScopeClosed):
                await scope.release(scope.ids)

        async with anyio.create_task_group() as group:
            with pytest.raises(ValueError, match="mine"):
                async with session.scope() as scope:
                    await scope.create("fits", IMAGE, replicas=4)
                    group.start_soon(release, scope)
                    raise ValueError("mine")
        assert [] == transport.sessions()

    play(scenario)


@pytest.mark.parametrize("fails", [False, True])
def test_client_closed_before_its_scope_loses_no_error_and_no_name(play: Play, fails: bool) -> None:
    async def scenario(transport: MemoryTransport, _: kaleden.AsyncSession) -> None:
        session = kaleden.AsyncSession(transport=transport)
        expected = ValueError if fails else ScopeError
        with pytest.raises(expected) as caught:
            async with AsyncExitStack() as outer, AsyncExitStack() as inner:
                scope = await outer.enter_async_context(open_client_and_scope(session, inner))
                await scope.create("fits", IMAGE, replicas=2)
                await inner.aclose()
                if fails:
                    raise ValueError("mine")
        assert scope.error is not None
        assert {s.id for s in transport.sessions()} == set(scope.error.survivors)
        if fails:
            assert [str(scope.error)] == caught.value.__notes__

    @asynccontextmanager
    async def open_client_and_scope(
        session: kaleden.AsyncSession, stack: AsyncExitStack
    ) -> AsyncIterator[kaleden.Scope]:
        await stack.enter_async_context(session)
        async with session.scope() as scope:
            yield scope

    play(scenario, duration=10**6)


def test_on_success_release_leaves_nothing_open_in_the_ledger(play: Play, tmp_path: Path) -> None:
    path = tmp_path / "ledger"

    async def scenario(transport: MemoryTransport, session: kaleden.AsyncSession) -> None:
        async with session.scope(on_success="release") as scope:
            created = await scope.create("fits", IMAGE, replicas=3)
            assert {FailureKind.UNKNOWN_EFFECT: 1} == created.counts()
        assert 3 == len(transport.sessions())
        assert scope.error is None
        assert [] == read_ledger(path)

    faults = [Fault(FaultKind.HALF_BODY, "create", nth=2), Fault(FaultKind.STALL, "list")]
    play(scenario, *faults, duration=10**6, session={"ledger": path, "settle": 1})


def test_clean_up_costs_a_few_lists_for_any_number_of_sessions(play: Play) -> None:
    async def scenario(transport: MemoryTransport, session: kaleden.AsyncSession) -> None:
        for count in (1, 20):
            before = transport.requests.copy()
            async with session.scope() as scope:
                await scope.create("fits", IMAGE, replicas=count)
                left_at = anyio.current_time()
            # One list before the deletes, since none has shown the sessions, and two after them.
            assert {"create": count, "destroy": count, "list": 3} == transport.requests - before
            assert anyio.current_time() - left_at < 2

    play(scenario, duration=10**6)


def test_deletes_that_fail_and_have_an_effect_are_repeated_once(play: Play) -> None:
    async def scenario(transport: MemoryTransport, session: kaleden.AsyncSession) -> None:
        before = transport.requests.copy()
        async with session.scope() as scope:
            await scope.create("fits", IMAGE, replicas=20)
            left_at = anyio.current_time()
        assert {"create": 20, "destroy": 40, "list": 3} == transport.requests - before
        assert anyio.current_time() - left_at < 6

    play(scenario, Fault(FaultKind.ERROR_AFTER, "destroy"), duration=10**6)


@pytest.mark.parametrize("fault", [FaultKind.ERROR_AFTER, FaultKind.HTML])
def test_launch_that_no_list_shows_in_time_is_named(
    play: Play, caplog: pytest.LogCaptureFixture, fault: FaultKind
) -> None:
    async def scenario(transport: MemoryTransport, session: kaleden.AsyncSession) -> None:
        with anyio.move_on_after(1):
            async with session.scope() as scope:
                await scope.create("fits", IMAGE)
        [left] = transport.sessions()
        named = scope.error is not None and left.spec.name in scope.error.launches
        assert named or left.spec.name in caplog.text

    caplog.set_level(logging.WARNING, "kaleden")
    late = Fault(FaultKind.LAG, "list", seconds=100.0)
    play(scenario, Fault(fault, "create", nth=1), late, duration=10**6)


def test_clean_up_of_ended_sessions_takes_one_list(play: Play) -> None:
    async def scenario(transport: MemoryTransport, session: kaleden.AsyncSession) -> None:
        async with session.scope() as scope:
            await scope.create("fits", IMAGE, replicas=20)
            assert (await scope.wait()).ok
            before, left_at = transport.requests.copy(), anyio.current_time()
        assert {"destroy": 20, "list": 1} == transport.requests - before
        assert anyio.current_time() - left_at < 0.2

    play(scenario)


@pytest.mark.parametrize("bad", [["../x"], [None, 5], "a b"])
def test_invalid_ids_cannot_be_adopted(play: Play, bad: Any) -> None:
    async def scenario(_: MemoryTransport, session: kaleden.AsyncSession) -> None:
        async with session.scope() as scope:
            with pytest.raises(kaleden.InvalidRequest):
                await scope.adopt(bad)
            assert [] == scope.ids

    play(scenario)


def test_scope_error_can_be_pickled_and_copied() -> None:
    error = ScopeError(("abc",), ("fits-1-xyz",))
    for copied in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (("abc",), ("fits-1-xyz",)) == (copied.survivors, copied.launches)
        assert str(error) == str(copied)


@pytest.mark.parametrize("arguments", [{"grace": 0}, {"grace": -1}, {"on_success": "keep"}])
async def test_invalid_scope_arguments_are_refused(arguments: dict[str, Any]) -> None:
    async with open_world() as (_, session):
        with pytest.raises(kaleden.ConfigurationError):
            session.scope(**arguments)


def test_ledger_lists_only_open_launches(play: Play, tmp_path: Path) -> None:
    path = tmp_path / "ledger"

    async def scenario(_: MemoryTransport, session: kaleden.AsyncSession) -> None:
        async with session.scope() as scope:
            created = await scope.create("fits", IMAGE, env={"SECRET": "hush"}, replicas=4)
            assert set(created.ids) == {launch.session_id for launch in read_ledger(path)}
            await scope.release(created.ids[0])
            assert set(created.ids[1:]) == {launch.session_id for launch in read_ledger(path)}
            await session.create("plain", IMAGE)
            assert 3 == len(read_ledger(path))
        assert [] == read_ledger(path)
        assert "hush" not in path.read_text()

    play(scenario, session={"ledger": path})


def test_launch_that_cannot_be_recorded_is_not_sent(
    play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_to_append(*_: object) -> None:
        raise LedgerError("no space left on device")

    async def scenario(transport: MemoryTransport, session: kaleden.AsyncSession) -> None:
        async with session.scope() as scope:
            monkeypatch.setattr("kaleden._sessions._ledger._file.append", fail_to_append)
            created = await scope.create("fits", IMAGE, replicas=4)
        assert {FailureKind.INTERNAL: 4} == created.counts()
        assert "no space left" in created.failures["fits-1"].message
        assert not any(failure.sent for failure in created.failures.values())
        assert 0 == transport.requests["create"]
        monkeypatch.undo()

    play(scenario, session={"ledger": tmp_path / "ledger"})


def test_ledger_that_fails_after_the_request_loses_no_session(
    play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "ledger"
    append = _file.append

    def append_only_launching(file: Path, lines: bytes) -> None:
        if b'"launching"' not in lines:
            raise LedgerError("no space left on device")
        append(file, lines)

    async def scenario(transport: MemoryTransport, session: kaleden.AsyncSession) -> None:
        async with session.scope() as scope:
            monkeypatch.setattr("kaleden._sessions._ledger._file.append", append_only_launching)
            assert (await scope.create("fits", IMAGE, replicas=2)).ok
            assert 2 == len(transport.sessions())
        assert [] == transport.sessions()
        monkeypatch.undo()

    play(scenario, session={"ledger": path})
    assert "is missing in the ledger" in caplog.text
    assert 2 == len(read_ledger(path))
