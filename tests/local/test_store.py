"""The state file of the embedded platform."""

from __future__ import annotations

import random
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaleden.local import Event, Kind, Phase, Platform, Session, Settings, Spec
from kaleden.local._platform._model import GIB
from kaleden.local._store import Store, deserialize_session, serialize_session

TEXT = st.text(max_size=8)
TIMES = st.floats(0, 4e9)
SPECS = st.builds(
    Spec,
    kind=st.sampled_from(Kind),
    name=TEXT,
    image=TEXT,
    millicores=st.integers(0, 10**6),
    ram=st.integers(0, 10**15),
    max_millicores=st.integers(0, 10**6),
    max_ram=st.integers(0, 10**15),
    command=st.lists(TEXT, max_size=3).map(tuple),
    env=st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple),
)
SESSIONS = st.builds(
    Session,
    id=TEXT,
    user=TEXT,
    spec=SPECS,
    created=TIMES,
    lifetime=TIMES,
    appid=st.none() | TEXT,
    phase=st.sampled_from(Phase),
    started=st.none() | TIMES,
    ended=st.none() | TIMES,
    events=st.lists(st.builds(Event, TEXT, TEXT, TEXT, TIMES, TIMES), max_size=3),
)
JOB = Spec(Kind.HEADLESS, "job", "image", 1000, GIB, 1000, GIB)


def make_session(id_: str) -> Session:
    return Session(id_, "ada", JOB, 0.0, 1.0)


@given(SESSIONS)
def test_session_round_trips(session: Session) -> None:
    assert session == deserialize_session(serialize_session(session))


def test_usage_is_not_stored() -> None:
    session = make_session("a")
    session.ram_in_use, session.cores_in_use = 1, 1.0
    assert (None, None) == (
        deserialize_session(serialize_session(session)).ram_in_use,
        deserialize_session(serialize_session(session)).cores_in_use,
    )


def test_saved_sessions_are_loaded_by_next_store(tmp_path: Path) -> None:
    path = tmp_path / "state"
    store = Store(path)
    store.save(
        [("a", serialize_session(make_session("a"))), ("b", serialize_session(make_session("b")))]
    )
    store.save(
        [
            ("a", None),
            ("b", serialize_session(make_session("b"))),
            ("c", serialize_session(make_session("c"))),
        ]
    )
    mark = store.get_value("mark")
    store.close()

    reopened = Store(path)
    assert ["b", "c"] == sorted(session.id for session in reopened.load())
    assert mark == reopened.get_value("mark")
    reopened.close()


def test_file_is_readable_only_by_owner(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    store.close()
    assert 0o600 == stat.S_IMODE((tmp_path / "state").stat().st_mode)


def test_file_is_locked_by_one_platform(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    with pytest.raises(RuntimeError, match="another platform"):
        Store(tmp_path / "state")
    store.close()
    Store(tmp_path / "state").close()


def test_file_that_is_not_a_database_raises(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_text("This is not a database. " * 20)
    with pytest.raises(RuntimeError, match="not a state file"):
        Store(path)


def test_platform_is_restored_from_its_changes(tmp_path: Path) -> None:
    settings = Settings(millicores=1000, ram=64 * GIB)
    before = Platform(settings, random.Random(0))
    gone, kept, queued = (before.create("ada", JOB, 5.0 + n) for n in range(3))
    before.ended(gone.key, 9.0, 0)
    before.delete("ada", gone.id, 9.0)
    before.ended(kept.key, 10.0, 1)

    store = Store(tmp_path / "state")
    store.save(
        [(key, None if s is None else serialize_session(s)) for key, s in before.take_changes()]
    )
    after = Platform(settings, random.Random(1))
    after.restore(store.load(), 11.0)
    store.close()
    assert [kept.id, queued.id] == [s.id for s in after.everyones()]
    assert kept == after.find("ada", kept.id)
