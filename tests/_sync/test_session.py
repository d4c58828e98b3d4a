"""`Session`: results, opening and closing."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("anycorn")

import kaleden
from kaleden import Session
from kaleden.testing import Fault, FaultKind, FaultPlan, MemoryTransport
from support import FULL_IMAGE, FakeTransport, described

QUICK: dict[str, Any] = {"latency": 0.001, "start_delay": 0.001, "duration": 0.02}


@pytest.fixture
def platform() -> MemoryTransport:
    return MemoryTransport(**QUICK)


@pytest.fixture
def session(backend: Any, platform: MemoryTransport) -> Iterator[Session]:
    with Session(transport=platform, backend=backend) as session:
        yield session


def session_on(reply: Any, backend: Any, **options: Any) -> tuple[Session, FakeTransport]:
    transport = FakeTransport(reply)
    return Session(transport=transport, backend=backend, **options), transport


# --- results --------------------------------------------------------------------------------------


def test_run_returns_the_finished_sessions(session: Session) -> None:
    results = session.run("fits", FULL_IMAGE, cmd="echo", replicas=5)
    assert results.ok
    assert ["Completed"] * 5 == [finished.info.status for finished in results.values]
    assert [] == session.fetch()


def test_raw_returns_the_objects_of_the_server(session: Session) -> None:
    [key] = session.create("fits", FULL_IMAGE, cmd="echo").values
    [listed] = session.fetch(raw=True)
    assert key == listed["id"]
    assert key == session.info(key, raw=True)[key].key
    with session.stream.info([key], raw=True) as results:
        [outcome] = results
    assert isinstance(outcome, kaleden.Success)
    assert "fits" == outcome.value["name"]


def test_scope_destroys_its_sessions(session: Session) -> None:
    with session.scope() as scope:
        created = scope.create("fits", FULL_IMAGE, cmd="echo", replicas=3)
        assert scope.is_open
        assert set(created.values) == set(scope.ids)
        assert 3 == scope.statistics().owned
        assert 3 == len(session.fetch())
    assert not scope.is_open
    assert scope.error is None
    assert [] == session.fetch()


def test_scope_adopts_and_releases(session: Session) -> None:
    stays, goes = session.create("plain", FULL_IMAGE, cmd="echo", replicas=2).values
    with session.scope() as scope:
        scope.adopt([stays, goes])
        scope.release(stays)
    assert [stays] == [each.id for each in session.fetch()]


def test_platform_queries_return_values(session: Session) -> None:
    assert [FULL_IMAGE] == [image.id for image in session.images() if image.id == FULL_IMAGE]
    assert session.context().cores.options
    assert session.stats().cores.available
    assert session.availability().available
    assert session.repositories()
    assert [] == session.fetch()


def test_ids_may_be_one_many_or_outcomes(session: Session) -> None:
    created = session.create("plain", FULL_IMAGE, cmd="echo", replicas=2)
    first, second = created.values
    for ids in ([first, second], (first, second), created, iter(created.values), session.fetch()):
        assert {first, second} == session.info(ids).successes.keys()
    assert [first] == list(session.info(first).successes)
    assert [True, True] == session.destroy(created).values


def test_retry_failed_repeats_the_failed_requests(backend: Any) -> None:
    plan = FaultPlan([Fault(FaultKind.GARBAGE, "info", nth=1)])
    with Session(transport=MemoryTransport(faults=plan, **QUICK), backend=backend) as session:
        [key] = session.create("plain", FULL_IMAGE, cmd="echo").values
        outcomes = session.info(key)
        assert not outcomes.ok
        assert session.retry_failed(outcomes).ok


# --- opening and closing --------------------------------------------------------------------------


def test_session_opens_at_its_first_use(backend: Any) -> None:
    session, _ = session_on(described, backend)
    assert "not open" in repr(session)
    assert session.info("abc").ok
    assert "Limiter" in repr(session)
    assert 0 == session.statistics().limiter.in_flight
    session.close()
    assert "not open" in repr(session)


def test_closed_session_stays_closed(session: Session) -> None:
    session.close()
    session.close()
    with pytest.raises(kaleden.SessionNotOpen, match="make another"):
        session.fetch()
    with pytest.raises(kaleden.SessionNotOpen, match="make another"):
        session.__enter__()


def test_unreferenced_session_is_closed(backend: Any) -> None:
    before = {*threading.enumerate()}
    session, _ = session_on(described, backend)
    assert session.info("abc").ok
    [thread] = [each for each in {*threading.enumerate()} - before if each.name == "kaleden"]
    reference = weakref.ref(session)
    del session
    gc.collect()
    assert reference() is None
    thread.join()


def test_failed_opening_is_retried_at_the_next_call(backend: Any, tmp_path: Any) -> None:
    folder = tmp_path / "not-yet"
    session, _ = session_on(described, backend, ledger=folder / "ledger")
    for _ in range(2):
        with pytest.raises(kaleden.LedgerError):
            session.info("abc")
    folder.mkdir()
    with session:
        assert session.info("abc").ok


class FailingTransport(FakeTransport):
    """A transport that times out when it is entered."""

    async def __aenter__(self) -> None:
        raise TimeoutError("too slow")

    async def __aexit__(self, *_: object) -> None:
        raise AssertionError


def test_error_of_opening_is_raised_unchanged(backend: Any) -> None:
    session = Session(transport=FailingTransport(described), backend=backend)
    with pytest.raises(TimeoutError, match="too slow"):
        session.info("abc")
    session.close()


@pytest.mark.parametrize("name", ["curio", "", None])
def test_unknown_backend_is_refused(name: Any) -> None:
    with pytest.raises(kaleden.ConfigurationError, match="asyncio"):
        Session("http://127.0.0.1:1/skaha", backend=name)


# --- copies, and messages -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Session, kaleden.AsyncSession])
@pytest.mark.parametrize("copy_session", [pickle.dumps, copy.copy, copy.deepcopy])
def test_session_is_neither_copied_nor_pickled(copy_session: Any, kind: Any) -> None:
    session = kind("https://host.example/skaha", "planted-token")
    with pytest.raises(TypeError, match="make another one there"):
        copy_session(session)
    assert session.describe() == pickle.loads(pickle.dumps(session.describe()))


def test_scope_error_distinguishes_left_from_never_entered(backend: Any) -> None:
    with Session(transport=MemoryTransport(**QUICK), backend=backend) as session:
        scope = session.scope()
        with pytest.raises(kaleden.ScopeClosed, match="not entered: use it inside its `with`"):
            scope.create("fits", FULL_IMAGE)
        with scope:
            pass
        with pytest.raises(kaleden.ScopeClosed, match="has ended"):
            scope.create("fits", FULL_IMAGE)


async def test_outcomes_of_a_session_cannot_be_retried_in_another_event_loop() -> None:
    with Session(transport=FakeTransport(described)) as session:
        outcomes = session.info("abc")
        with pytest.raises(kaleden.WrongEventLoop, match=r"its own retry_failed\(outcomes\)"):
            await outcomes.retry_failed()
        assert session.retry_failed(outcomes).ok
