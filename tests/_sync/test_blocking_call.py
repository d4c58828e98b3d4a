"""Calls of `Session`: time-outs, errors of the caller's functions, and Ctrl-C."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("anycorn")

import kaleden
from _sync.helpers import FITS, QUICK, CallerError, CallerInterrupt, interrupt, posix
from kaleden import InvalidRequest, Session
from kaleden.testing import MemoryTransport
from support import FULL_IMAGE, FakeTransport, described, stalled


def create(session: Session) -> object:
    return session.create("fits", **FITS)


def run(session: Session) -> object:
    return session.run("fits", **FITS, on_success="release")


# --- time-outs ------------------------------------------------------------------------------------


def test_timeout_cancels_the_requests_in_flight(backend: Any) -> None:
    with Session(transport=FakeTransport(stalled), backend=backend) as session:
        with pytest.raises(kaleden.CallTimedOut, match=r"0\.01 seconds"):
            session.info("abc", timeout=0.01)
        assert 0 == session.statistics().limiter.in_flight


def test_timeout_of_zero_times_out(backend: Any) -> None:
    with Session(transport=FakeTransport(described), backend=backend) as session:
        with pytest.raises(kaleden.CallTimedOut):
            session.info("abc", timeout=0)


@pytest.mark.parametrize("timeout", [math.nan, "5", [1], -1, -math.inf], ids=repr)
def test_timeout_that_is_not_a_number_of_seconds_is_refused(timeout: Any, backend: Any) -> None:
    transport = FakeTransport(described)
    with Session(transport=transport, backend=backend) as session:
        with pytest.raises(InvalidRequest, match="timeout is a number of seconds"):
            session.info("abc", timeout=timeout)
        with pytest.raises(InvalidRequest, match="timeout is a number of seconds"):
            session.stream.info("abc", timeout=timeout)
        assert session.info("abc", timeout=math.inf).ok
    assert 1 == len(transport.requests)


# --- the caller's functions -----------------------------------------------------------------------


@pytest.mark.parametrize("error", [CallerError, CallerInterrupt, SystemExit, KeyboardInterrupt])
def test_errors_of_functions_are_raised_unchanged(error: Any, backend: Any) -> None:
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


def test_error_of_progress_is_not_logged_as_an_interruption(
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


# --- Ctrl-C ---------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("work", [create, run])
def test_interrupt_at_the_end_of_a_launch_logs_the_sessions(
    work: Callable[[Session], object],
    backend: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    original = getattr(kaleden.AsyncSession, work.__name__)
    logged = threading.Event()

    async def launch(*args: Any, **options: Any) -> Any:
        result = await original(*args, **options)
        # Block the event loop until the other thread has begun to cancel the call.
        interrupt()
        assert logged.wait(60)
        return result

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:  # noqa: ARG002  # any record will do
            logged.set()

    monkeypatch.setattr(kaleden.AsyncSession, work.__name__, launch)
    logger, handler = logging.getLogger("kaleden"), Handler()
    logger.addHandler(handler)
    try:
        platform = MemoryTransport(**QUICK)
        with Session(transport=platform, backend=backend) as session:
            with pytest.raises(KeyboardInterrupt):
                work(session)
    finally:
        logger.removeHandler(handler)
    keys = sorted(each.id for each in platform.sessions())
    assert 2 == len(keys)
    assert f"sessions {keys} were created and are yours to destroy" in caplog.messages[-1]


@posix
def test_second_interrupt_logs_the_sessions_that_are_created_later(
    backend: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, is_raised = kaleden.AsyncSession.create, threading.Event()
    logged = threading.Event()

    async def launch(*args: Any, **options: Any) -> Any:
        result = await original(*args, **options)
        interrupt()
        assert is_raised.wait(60)
        return result

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "another Ctrl-C" in record.getMessage():
                interrupt()
            elif "were created" in record.getMessage():
                logged.set()

    monkeypatch.setattr(kaleden.AsyncSession, "create", launch)
    logger, handler = logging.getLogger("kaleden"), Handler()
    logger.addHandler(handler)
    try:
        platform = MemoryTransport(**QUICK)
        session = Session(transport=platform, backend=backend)
        with pytest.raises(KeyboardInterrupt):
            create(session)
        is_raised.set()
        assert logged.wait(60)
    finally:
        logger.removeHandler(handler)
    session.close()
    keys = sorted(each.id for each in platform.sessions())
    assert 2 == len(keys)
    assert f"sessions {keys} were created and are yours to destroy" in caplog.messages[-1]
