"""What is at the edges of `Session`: results that nobody sees, odd times, handlers, copies."""

from __future__ import annotations

import copy
import logging
import math
import pickle
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import anyio
import pytest

pytest.importorskip("anycorn")

import kaleden
from kaleden import InvalidRequest, Session, SessionNotOpen
from kaleden._sync._streams import _batch
from kaleden._wire import Request, Response
from kaleden.testing import MemoryTransport
from support import FULL_IMAGE, PLAIN_BACKENDS, FakeTransport, described

QUICK: dict[str, Any] = {"latency": 0.0, "start_delay": 0.0, "duration": 0.005}

posix = pytest.mark.skipif(sys.platform == "win32", reason="the signals of POSIX systems")


@pytest.fixture(params=PLAIN_BACKENDS)
def backend(request: pytest.FixtureRequest) -> Any:
    return request.param


def create(session: Session) -> object:
    return session.create("fits", FULL_IMAGE, cmd="echo", replicas=2)


def run(session: Session) -> object:
    return session.run("fits", FULL_IMAGE, cmd="echo", replicas=2, on_success="release")


def interrupt() -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


@posix
@pytest.mark.parametrize("work", [create, run])
def test_what_was_created_as_ctrl_c_came_is_named_in_the_log(
    work: Callable[[Session], object],
    backend: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    original = getattr(kaleden.AsyncSession, work.__name__)
    noticed = threading.Event()

    async def struck(*args: Any, **options: Any) -> Any:
        result = await original(*args, **options)
        # The event loop stands still until the other thread has begun to give the call up.
        interrupt()
        assert noticed.wait(60)
        return result

    class Notice(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:  # noqa: ARG002  # that one came
            noticed.set()

    monkeypatch.setattr(kaleden.AsyncSession, work.__name__, struck)
    logger, notice = logging.getLogger("kaleden"), Notice()
    logger.addHandler(notice)
    try:
        platform = MemoryTransport(**QUICK)
        with Session(transport=platform, backend=backend) as session:
            with pytest.raises(KeyboardInterrupt):
                work(session)
    finally:
        logger.removeHandler(notice)
    keys = sorted(each.id for each in platform.sessions())
    assert 2 == len(keys)
    assert f"sessions {keys} were created and are yours to destroy" in caplog.messages[-1]


@posix
def test_what_is_created_after_a_second_ctrl_c_is_named_in_the_log(
    backend: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, done = kaleden.AsyncSession.create, threading.Event()
    told = threading.Event()

    async def struck(*args: Any, **options: Any) -> Any:
        result = await original(*args, **options)
        interrupt()
        assert done.wait(60)
        return result

    class Notice(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "another Ctrl-C" in record.getMessage():
                interrupt()
            else:
                told.set()

    monkeypatch.setattr(kaleden.AsyncSession, "create", struck)
    logger, notice = logging.getLogger("kaleden"), Notice()
    logger.addHandler(notice)
    try:
        platform = MemoryTransport(**QUICK)
        session = Session(transport=platform, backend=backend)
        with pytest.raises(KeyboardInterrupt):
            create(session)
        done.set()
        assert told.wait(60)
    finally:
        logger.removeHandler(notice)
    session.close()
    keys = sorted(each.id for each in platform.sessions())
    assert 2 == len(keys)
    assert f"sessions {keys} were created and are yours to destroy" in caplog.messages[-1]


@pytest.mark.parametrize("timeout", [math.nan, "5", [1], -1, -math.inf], ids=repr)
def test_a_timeout_that_is_no_number_of_seconds_is_refused(timeout: Any, backend: Any) -> None:
    transport = FakeTransport(described)
    with Session(transport=transport, backend=backend) as session:
        with pytest.raises(InvalidRequest, match="timeout is a number of seconds"):
            session.info("abc", timeout=timeout)
        with pytest.raises(InvalidRequest, match="timeout is a number of seconds"):
            session.stream.info("abc", timeout=timeout)
        assert session.info("abc", timeout=math.inf).ok
    assert 1 == len(transport.requests)


def test_only_ctrl_c_is_told_of_as_an_interruption(
    backend: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError

    platform = MemoryTransport(**QUICK | {"duration": math.inf})
    with (
        Session(transport=platform, backend=backend) as session,
        pytest.raises(ZeroDivisionError),
    ):
        session.run("fits", FULL_IMAGE, cmd="echo", grace=7, progress=fail)
    assert "ending what was begun, which may take up to 7 seconds" in caplog.messages
    assert [] == platform.sessions()


def test_a_scope_says_whether_it_was_left_or_never_entered(backend: Any) -> None:
    with Session(transport=MemoryTransport(**QUICK), backend=backend) as session:
        scope = session.scope()
        with pytest.raises(kaleden.ScopeClosed, match="not entered: use it inside its `with`"):
            scope.create("fits", FULL_IMAGE)
        with scope:
            pass
        with pytest.raises(kaleden.ScopeClosed, match="has ended"):
            scope.create("fits", FULL_IMAGE)


async def test_outcomes_of_plain_code_say_what_retries_them() -> None:
    with Session(transport=FakeTransport(described)) as session:
        outcomes = session.info("abc")
        with pytest.raises(kaleden.WrongEventLoop, match=r"its own retry_failed\(outcomes\)"):
            await outcomes.retry_failed()
        assert session.retry_failed(outcomes).ok


def test_a_stream_shows_its_state(backend: Any) -> None:
    with Session(transport=FakeTransport(described), backend=backend) as session:
        stream = session.stream.info(["abc", "def"])
        assert "<SyncOutcomeStream: not open, 0 at hand>" == repr(stream)
        with stream:
            assert "<SyncOutcomeStream: open, 0 at hand>" == repr(stream)
            assert 2 == len(list(stream))
            assert "<SyncOutcomeStream: ended, 0 at hand>" == repr(stream)


@posix
@pytest.mark.parametrize("point", ["check", "_start", "_hand_over"])
def test_the_handler_of_a_signal_may_close_it_wherever_its_thread_is(
    point: str, backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(transport=FakeTransport(described), backend=backend)
    bridge = vars(session)["_bridge"]
    original = getattr(bridge, point)

    def close(*_: object) -> None:
        session.close()

    previous = signal.signal(signal.SIGUSR1, close)

    def struck(*args: Any) -> Any:
        monkeypatch.setattr(bridge, point, original)
        signal.raise_signal(signal.SIGUSR1)
        return original(*args)

    monkeypatch.setattr(bridge, point, struck)
    try:
        with pytest.raises(SessionNotOpen):
            session.info("abc")
            session.info("abc")
    finally:
        signal.signal(signal.SIGUSR1, previous)


def interrupted_at(line: int, function: str) -> Any:
    """Make a tracer that interrupts this thread at a line of a function of the bridge."""
    passed = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal passed
        code = frame.f_code
        if code.co_name != function or not code.co_filename.endswith("_loop_thread.py"):
            return None
        passed += event == "line"
        if passed == line:
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace

    return trace


def test_ctrl_c_while_its_thread_is_started_leaves_no_other_thread(backend: Any) -> None:
    previous, interrupted = sys.gettrace(), 0
    while True:
        before = {*threading.enumerate()}
        session = Session(transport=FakeTransport(described), backend=backend)
        sys.settrace(interrupted_at(interrupted + 1, "_start"))
        try:
            session.info("abc")
        except KeyboardInterrupt:
            interrupted += 1
        else:
            break
        finally:
            sys.settrace(previous)
        assert session.info("abc").ok
        [thread] = [each for each in threading.enumerate() if each not in before]
        session.close()
        thread.join()
    session.close()
    assert 5 < interrupted


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_exit_in_the_event_loop_is_told_and_not_waited_for(backend: Any) -> None:
    async def reply(request: Request) -> Response:
        if "exit" in request.target:
            raise SystemExit(3)
        return await described(request)

    session = Session(transport=FakeTransport(reply), backend=backend)
    with pytest.raises(SystemExit):
        session.info("exit")
    if backend == "asyncio":
        # asyncio lets no task catch the exit of another: its loop ends.
        assert vars(session)["_bridge"]._over.wait(60)
        with pytest.raises(SessionNotOpen, match="make another session") as caught:
            session.info("abc")
        assert isinstance(caught.value.__cause__, SystemExit | RuntimeError)
        with pytest.raises(SystemExit):
            session.close()
    else:
        assert session.info("abc").ok
        session.close()


@pytest.mark.parametrize("kind", [Session, kaleden.AsyncSession])
@pytest.mark.parametrize("take", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_session_is_neither_copied_nor_pickled(take: Any, kind: Any) -> None:
    session = kind("https://host.example/skaha", "planted-token")
    with pytest.raises(TypeError, match="make another one there"):
        take(session)
    assert session.describe() == pickle.loads(pickle.dumps(session.describe()))


def test_ids_that_ask_for_the_outcomes_of_their_own_stream_get_an_error(backend: Any) -> None:
    with Session(transport=FakeTransport(described), backend=backend) as session:

        def keys() -> Iterator[str]:
            yield "abc"
            next(results)

        results = session.stream.info(keys())
        with pytest.raises(ValueError, match="already executing"), results:
            list(results)
        assert session.info("abc").ok


class Interrupted:
    """Ids among which Ctrl-C comes, once; they go on after it."""

    def __init__(self, ids: list[str], after: int) -> None:
        self._ids = ids
        self._after = after
        self._given = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self._given == self._after:
            self._after = -1
            raise KeyboardInterrupt

        if self._given == len(self._ids):
            raise StopIteration

        self._given += 1
        return self._ids[self._given - 1]


@pytest.mark.parametrize("after", [0, 3, 20])
def test_ids_that_were_drawn_before_ctrl_c_are_asked_for_by_whoever_goes_on(
    after: int, backend: Any
) -> None:
    ids = [f"id{number}" for number in range(20)]
    told: list[str] = []
    interruptions = 0
    with (
        Session(transport=FakeTransport(described), backend=backend) as session,
        session.stream.info(Interrupted(ids, after)) as results,
    ):
        while len(told) < len(ids) or not interruptions:
            try:
                told.append(next(results).key)
            except KeyboardInterrupt:
                interruptions += 1
        with pytest.raises(StopIteration):
            next(results)
    assert ids == sorted(told, key=ids.index)


@pytest.mark.parametrize("passes", [0, 1, 3])
async def test_what_was_taken_before_ctrl_c_is_there_for_whoever_goes_on(passes: int) -> None:
    class FakeStream:
        """Gives one item, and others as long as nobody has pressed Ctrl-C."""

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
        await _batch(stream, ready)
    assert scope.cancelled_caught
    assert [*range(stream.given + 1)] == [*ready]
