"""Calls of `Session` that are struck at every point of their requests, and by every means."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest
from attrs import frozen

pytest.importorskip("anycorn")

import kaleden
from kaleden import Session, SessionInfo, SessionStatus
from kaleden._wire import Request, Response
from kaleden.testing import Fault, FaultKind, FaultPlan, MemoryTransport
from support import FULL_IMAGE, PLAIN_BACKENDS, FakeTransport, described, stalled

QUICK: dict[str, Any] = {"latency": 0.0, "start_delay": 0.0, "duration": 0.005}
FITS: dict[str, Any] = {"image": FULL_IMAGE, "cmd": "echo", "replicas": 2}
STEP = 7
KNOWN = [f"id{number}" for number in range(3)]

Work = Callable[[Session], object]


@pytest.fixture(params=PLAIN_BACKENDS)
def backend(request: pytest.FixtureRequest) -> Any:
    return request.param


def run(session: Session) -> None:
    session.run("fits", **FITS)


def scope(session: Session) -> None:
    with session.scope() as scope:
        scope.wait(scope.create("fits", **FITS))


def info(session: Session) -> None:
    session.info(KNOWN)


def stream(session: Session) -> None:
    with session.stream.info(key for key in KNOWN) as results:
        assert {*KNOWN} == {outcome.key for outcome in results}


def follow(session: Session) -> None:
    with session.scope() as scope, session.follow(scope.create("fits", **FITS)) as lines:
        list(lines)


def interrupt(_: Session) -> None:
    # Sent to the thread and not to the process, so that what it waits for is interrupted.
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def close(session: Session) -> None:
    threading.Thread(target=session.close).start()


@frozen
class Struck:
    """What came of a call that was struck.

    Attributes:
        passed: how many points its requests passed.
        raised: what it raised.
        left: how many sessions it left.
    """

    passed: int
    raised: type | None
    left: int


def struck_at(point: int, work: Work, backend: Any, strike: Work) -> Struck:
    """Do *work*, and strike at one point of its requests."""
    passed = 0

    def on_point(*_: Any) -> None:
        nonlocal passed
        passed += 1
        if passed == point:
            strike(session)

    platform = MemoryTransport(on_point=on_point, **QUICK)
    session = Session(transport=platform, backend=backend)
    raised: type | None = None
    try:
        work(session)
    except (KeyboardInterrupt, kaleden.SessionNotOpen) as error:
        raised = type(error)
    platform.on_point = None
    result = Struck(passed, raised, sum(platform.platform.count().values()))
    if strike is interrupt:
        assert [] == session.fetch()
        assert 0 == session.statistics().limiter.in_flight
    session.close()
    return result


def struck(work: Work, backend: Any, strike: Work) -> Iterator[Struck]:
    """Strike at one point after the other, some steps apart, until the work is done before that."""
    point = 1
    while (result := struck_at(point, work, backend, strike)).passed >= point:
        yield result
        point += STEP


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the signals of POSIX systems")
@pytest.mark.parametrize("work", [run, scope, info, stream, follow])
def test_an_interruption_at_any_point_leaves_nothing(work: Work, backend: Any) -> None:
    results = list(struck(work, backend, interrupt))
    assert len(results) > 2
    assert {(KeyboardInterrupt, 0)} == {(each.raised, each.left) for each in results}


@pytest.mark.slow
@pytest.mark.parametrize("work", [run, stream])
def test_a_close_at_any_point_leaves_nothing(work: Work, backend: Any) -> None:
    results = list(struck(work, backend, close))
    assert len(results) > 2
    # A call that was as good as done when the other thread closed may have come to its end.
    assert {(kaleden.SessionNotOpen, 0)} <= {(each.raised, each.left) for each in results}
    assert {0} == {each.left for each in results}


@pytest.mark.slow
@pytest.mark.parametrize("milliseconds", range(0, 40, 8))
def test_a_timeout_at_any_moment_leaves_nothing(milliseconds: int, backend: Any) -> None:
    platform = MemoryTransport(**QUICK | {"latency": 0.004})
    with Session(transport=platform, backend=backend) as session:
        try:
            session.run("fits", **FITS, timeout=milliseconds / 1000)
        except kaleden.CallTimedOut as error:
            assert isinstance(error, TimeoutError)
        assert [] == session.fetch()
        assert 0 == session.statistics().limiter.in_flight


# --- how a call ends ------------------------------------------------------------------------------


def test_a_timeout_gives_up_what_was_on_its_way(backend: Any) -> None:
    with Session(transport=FakeTransport(stalled), backend=backend) as session:
        with pytest.raises(kaleden.CallTimedOut, match=r"0\.01 seconds"):
            session.info("abc", timeout=0.01)
        assert 0 == session.statistics().limiter.in_flight


def test_a_timeout_of_a_stream_is_that_of_its_block(backend: Any) -> None:
    with Session(transport=FakeTransport(stalled), backend=backend) as session:
        with pytest.raises(kaleden.CallTimedOut, match=r"0\.01 seconds"):
            with session.stream.info(KNOWN, timeout=0.01) as results:
                list(results)
        assert 0 == session.statistics().limiter.in_flight


def test_no_time_at_all_is_a_timeout(backend: Any) -> None:
    with Session(transport=FakeTransport(described), backend=backend) as session:
        with pytest.raises(kaleden.CallTimedOut):
            session.info("abc", timeout=0)


class Mine(Exception):
    """An error of the caller's."""


class Worse(BaseException):
    """One that is no `Exception`."""


def failing(error: type[BaseException]) -> Iterator[str]:
    yield KNOWN[0]
    raise error


@pytest.mark.parametrize("error", [Mine, Worse, SystemExit, KeyboardInterrupt])
def test_errors_of_the_callers_iterable_come_out_as_themselves(error: Any, backend: Any) -> None:
    with Session(transport=FakeTransport(described), backend=backend) as session:
        with pytest.raises(error):
            session.info(failing(error))
        with pytest.raises(error):
            with session.stream.info(failing(error)) as results:
                list(results)
        with pytest.raises(error):
            with session.follow(failing(error)) as lines:
                list(lines)
        assert session.info("abc").ok


@pytest.mark.parametrize("error", [Mine, Worse, SystemExit, KeyboardInterrupt])
def test_errors_of_the_callers_functions_come_out_as_themselves(error: Any, backend: Any) -> None:
    def fail(_: Any) -> Any:
        raise error

    with Session(transport=MemoryTransport(**QUICK), backend=backend) as session:
        keys = session.create("plain", **FITS)
        for wait in (session.wait, session.scope().wait):
            with pytest.raises(error):
                wait(keys, progress=fail)
            with pytest.raises(error):
                wait(keys, fail)
        with pytest.raises(error):
            with session.stream.wait(keys, progress=fail) as results:
                list(results)
        with pytest.raises(error):
            with session.stream.wait(keys, fail) as results:
                list(results)
        assert session.info(keys).ok


@pytest.mark.parametrize("error", [Mine, Worse, SystemExit, StopIteration, GeneratorExit])
def test_errors_of_a_block_come_out_as_themselves(error: Any, backend: Any) -> None:
    with Session(transport=MemoryTransport(**QUICK), backend=backend) as session:
        for block in (session.scope(), session.stream.info(KNOWN), session.follow(KNOWN)):
            raised = error("mine")
            with pytest.raises(error) as caught:
                with block:
                    raise raised
            assert raised is caught.value
            assert 1 == len(caught.traceback)
        assert [] == session.fetch()


def test_what_a_scope_could_not_end_is_noted_on_the_error_of_its_block(backend: Any) -> None:
    plan = FaultPlan([Fault(FaultKind.LIE, "destroy")])
    platform = MemoryTransport(faults=plan, **QUICK | {"duration": 60})
    with Session(transport=platform, backend=backend) as session:
        with pytest.raises(Mine) as caught:
            with session.scope(grace=0.2) as scope:
                [key] = scope.create("fits", FULL_IMAGE, cmd="echo").values
                raise Mine
        assert any(key in note for note in caught.value.__notes__)
        assert scope.error is not None
        with pytest.raises(kaleden.ScopeError, match="may be left"):
            with session.scope(grace=0.2) as scope:
                scope.create("fits", FULL_IMAGE, cmd="echo").raise_on_failure()


def test_the_callers_iterables_and_progress_run_in_the_callers_thread(backend: Any) -> None:
    here = threading.current_thread()
    seen: set[threading.Thread] = set()

    def ids(keys: list[str]) -> Iterator[str]:
        for key in keys:
            seen.add(threading.current_thread())
            assert session.info(key).ok  # so they may use the session
            yield key

    def progress(_: Any) -> None:
        seen.add(threading.current_thread())

    with Session(transport=MemoryTransport(**QUICK), backend=backend) as session:
        keys = session.create("plain", **FITS).values
        session.wait(ids(keys), progress=progress)
        session.logs(ids(keys))
        with session.stream.info(ids(keys)) as results:
            assert {*keys} == {outcome.key for outcome in results}
        with session.scope() as scope:
            scope.adopt(ids(keys))
        assert {here} == seen


def test_a_function_in_the_event_loop_cannot_wait_for_it(backend: Any) -> None:
    def until(_: SessionInfo) -> bool:
        return bool(session.fetch())

    with Session(transport=MemoryTransport(**QUICK), backend=backend) as session:
        keys = session.create("plain", **FITS)
        with pytest.raises(kaleden.WrongThread, match="wait for itself"):
            session.wait(keys, until)


def test_goals_may_come_from_a_generator(backend: Any) -> None:
    with Session(transport=MemoryTransport(**QUICK), backend=backend) as session:
        keys = session.create("plain", **FITS)
        assert session.wait(keys, (status for status in [SessionStatus.COMPLETED])).ok
        nonsense: list[Any] = [5, []]
        for until in nonsense:
            with pytest.raises(kaleden.InvalidRequest, match="until"):
                session.wait(keys, until)


def test_a_stream_draws_no_more_ids_than_it_can_work_on(backend: Any) -> None:
    drawn = 0

    def ids() -> Iterator[str]:
        nonlocal drawn
        while True:
            drawn += 1
            yield f"id{drawn}"

    async def reply(request: Request) -> Response:
        if transport.in_flight == 4:
            all_work.set()
        await all_work.wait()
        return await described(request)

    all_work = anyio.Event()
    transport = FakeTransport(reply)
    with Session(transport=transport, concurrency=4, backend=backend) as session:
        with session.stream.info(ids()) as results:
            for taken, _ in enumerate(results, 1):
                assert drawn <= taken + 64
                if taken == 500:
                    break
        assert 4 == transport.most_in_flight


def test_a_stream_is_used_inside_its_block(backend: Any) -> None:
    with Session(transport=FakeTransport(described), backend=backend) as session:
        results = session.stream.info(KNOWN)
        with pytest.raises(kaleden.SessionNotOpen, match="inside"):
            next(results)
        with results:
            next(results)
        with pytest.raises(kaleden.SessionNotOpen, match="inside"):
            next(results)
