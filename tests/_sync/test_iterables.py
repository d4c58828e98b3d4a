"""The caller's iterables, which `Session` consumes in the caller's thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("anycorn")

import kaleden
from _sync.helpers import FITS, QUICK, CallerError, CallerInterrupt
from kaleden import Session, SessionInfo, SessionStatus
from kaleden.testing import MemoryTransport
from support import FakeTransport, described


def fail_after_one(error: type[BaseException]) -> Iterator[str]:
    yield "id0"
    raise error


@pytest.mark.parametrize("error", [CallerError, CallerInterrupt, SystemExit, KeyboardInterrupt])
def test_errors_of_iterables_are_raised_unchanged(error: Any, backend: Any) -> None:
    with Session(transport=FakeTransport(described), backend=backend) as session:
        with pytest.raises(error):
            session.info(fail_after_one(error))
        with pytest.raises(error):
            with session.stream.info(fail_after_one(error)) as results:
                list(results)
        with pytest.raises(error):
            with session.follow(fail_after_one(error)) as lines:
                list(lines)
        assert session.info("abc").ok


def test_iterables_and_progress_run_in_the_calling_thread(backend: Any) -> None:
    here = threading.current_thread()
    seen: set[threading.Thread] = set()

    def ids(keys: list[str]) -> Iterator[str]:
        for key in keys:
            seen.add(threading.current_thread())
            assert session.info(key).ok  # in this thread, they may use the session
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


def test_until_function_cannot_call_the_session(backend: Any) -> None:
    def until(_: SessionInfo) -> bool:
        return bool(session.fetch())

    with Session(transport=MemoryTransport(**QUICK), backend=backend) as session:
        keys = session.create("plain", **FITS)
        with pytest.raises(kaleden.WrongThread, match="wait for itself"):
            session.wait(keys, until)


def test_until_accepts_a_generator_of_statuses(backend: Any) -> None:
    with Session(transport=MemoryTransport(**QUICK), backend=backend) as session:
        keys = session.create("plain", **FITS)
        assert session.wait(keys, (status for status in [SessionStatus.COMPLETED])).ok
        invalid: list[Any] = [5, []]
        for until in invalid:
            with pytest.raises(kaleden.InvalidRequest, match="until"):
                session.wait(keys, until)
