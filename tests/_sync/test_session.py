"""The client for plain code: what it gives, raises, and runs where."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("anycorn")

import kaleden
from kaleden import Session
from kaleden.testing import Fault, FaultKind, FaultPlan, MemoryTransport
from support import (
    FULL_IMAGE,
    PLAIN_BACKENDS,
    FakeTransport,
    described,
)

QUICK: dict[str, Any] = {"latency": 0.001, "start_delay": 0.001, "duration": 0.02}


@pytest.fixture(params=PLAIN_BACKENDS)
def backend(request: pytest.FixtureRequest) -> Any:
    return request.param


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


# --- what it gives --------------------------------------------------------------------------------


def test_a_batch_from_its_launch_to_its_end(session: Session) -> None:
    results = session.run("fits", FULL_IMAGE, cmd="echo", replicas=5)
    assert results.ok
    assert ["Completed"] * 5 == [finished.info.status for finished in results.values]
    assert [] == session.fetch()


def test_sessions_can_be_had_as_the_server_tells_of_them(session: Session) -> None:
    [key] = session.create("fits", FULL_IMAGE, cmd="echo").values
    [listed] = session.fetch(raw=True)
    assert key == listed["id"]
    assert key == session.info(key, raw=True)[key].key
    with session.stream.info([key], raw=True) as results:
        [outcome] = results
    assert isinstance(outcome, kaleden.Success)
    assert "fits" == outcome.value["name"]


def test_a_scope_ends_what_it_owns(session: Session) -> None:
    with session.scope() as scope:
        created = scope.create("fits", FULL_IMAGE, cmd="echo", replicas=3)
        assert scope.is_open
        assert set(created.values) == set(scope.ids)
        assert 3 == scope.statistics().owned
        assert 3 == len(session.fetch())
    assert not scope.is_open
    assert scope.error is None
    assert [] == session.fetch()


def test_a_scope_takes_over_and_lets_go(session: Session) -> None:
    stays, goes = session.create("plain", FULL_IMAGE, cmd="echo", replicas=2).values
    with session.scope() as scope:
        scope.adopt([stays, goes])
        scope.release(stays)
    assert [stays] == [each.id for each in session.fetch()]


def test_questions_about_the_platform(session: Session) -> None:
    assert [FULL_IMAGE] == [image.id for image in session.images() if image.id == FULL_IMAGE]
    assert session.context().cores.options
    assert session.stats().cores.available
    assert session.availability().available
    assert session.repositories()
    assert [] == session.fetch()


def test_one_id_many_ids_and_earlier_outcomes_are_all_ids(session: Session) -> None:
    created = session.create("plain", FULL_IMAGE, cmd="echo", replicas=2)
    first, second = created.values
    for ids in ([first, second], (first, second), created, iter(created.values), session.fetch()):
        assert {first, second} == session.info(ids).successes.keys()
    assert [first] == list(session.info(first).successes)
    assert [True, True] == session.destroy(created).values


def test_what_failed_is_asked_for_again(backend: Any) -> None:
    plan = FaultPlan([Fault(FaultKind.GARBAGE, "info", nth=1)])
    with Session(transport=MemoryTransport(faults=plan, **QUICK), backend=backend) as session:
        [key] = session.create("plain", FULL_IMAGE, cmd="echo").values
        outcomes = session.info(key)
        assert not outcomes.ok
        assert session.retry_failed(outcomes).ok


def test_logs_are_followed_to_their_ends(backend: Any) -> None:
    platform = MemoryTransport(log=lambda _session, _seconds: "one\ntwo\n", **QUICK)
    with Session(transport=platform, backend=backend) as session:
        created = session.create("plain", FULL_IMAGE, cmd="echo")
        with session.follow(created) as lines:
            texts = [line.text for line in lines if isinstance(line, kaleden.LogLine)]
    assert ["one", "two"] == texts


def test_it_opens_at_its_first_use(backend: Any) -> None:
    session, _ = session_on(described, backend)
    assert "not open" in repr(session)
    assert session.info("abc").ok
    assert "Limiter" in repr(session)
    assert 0 == session.statistics().limiter.in_flight
    session.close()
    assert "not open" in repr(session)


def test_a_closed_session_stays_closed(session: Session) -> None:
    session.close()
    session.close()
    with pytest.raises(kaleden.SessionNotOpen, match="make another"):
        session.fetch()
    with pytest.raises(kaleden.SessionNotOpen, match="make another"):
        session.__enter__()


def test_it_closes_when_nobody_has_it_any_more(backend: Any) -> None:
    before = {*threading.enumerate()}
    session, _ = session_on(described, backend)
    assert session.info("abc").ok
    [thread] = [each for each in {*threading.enumerate()} - before if each.name == "kaleden"]
    gone = weakref.ref(session)
    del session
    gc.collect()
    assert gone() is None
    thread.join()


def test_what_cannot_be_opened_says_so_each_time_and_may_be_tried_again(
    backend: Any, tmp_path: Any
) -> None:
    folder = tmp_path / "not-yet"
    session, _ = session_on(described, backend, ledger=folder / "ledger")
    for _ in range(2):
        with pytest.raises(kaleden.LedgerError):
            session.info("abc")
    folder.mkdir()
    with session:
        assert session.info("abc").ok


class Unopened(FakeTransport):
    """A transport that takes too long to open."""

    async def __aenter__(self) -> None:
        raise TimeoutError("too slow")

    async def __aexit__(self, *_: object) -> None:
        raise AssertionError


def test_an_error_of_opening_comes_out_as_itself(backend: Any) -> None:
    session = Session(transport=Unopened(described), backend=backend)
    with pytest.raises(TimeoutError, match="too slow"):
        session.info("abc")
    session.close()


@pytest.mark.parametrize("name", ["curio", "", None])
def test_only_known_backends_are_taken(name: Any) -> None:
    with pytest.raises(kaleden.ConfigurationError, match="asyncio"):
        Session("http://127.0.0.1:1/skaha", backend=name)
