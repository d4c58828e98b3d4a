"""What a platform remembers on disk."""

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


def session(id_: str) -> Session:
    return Session(id_, "ada", JOB, 0.0, 1.0)


@given(SESSIONS)
def test_a_session_comes_back_as_it_was(one: Session) -> None:
    assert one == deserialize_session(serialize_session(one))


def test_what_it_used_is_not_remembered() -> None:
    one = session("a")
    one.ram_in_use, one.cores_in_use = 1, 1.0
    assert (None, None) == (
        deserialize_session(serialize_session(one)).ram_in_use,
        deserialize_session(serialize_session(one)).cores_in_use,
    )


def test_what_was_saved_is_loaded_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "state"
    store = Store(path)
    store.save([("a", serialize_session(session("a"))), ("b", serialize_session(session("b")))])
    store.save(
        [
            ("a", None),
            ("b", serialize_session(session("b"))),
            ("c", serialize_session(session("c"))),
        ]
    )
    mark = store.get_value("mark")
    store.close()

    again = Store(path)
    assert ["b", "c"] == sorted(one.id for one in again.load())
    assert mark == again.get_value("mark")
    again.close()


def test_the_file_is_its_owners_only(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    store.close()
    assert 0o600 == stat.S_IMODE((tmp_path / "state").stat().st_mode)


def test_a_file_is_used_by_one_platform_at_a_time(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    with pytest.raises(RuntimeError, match="another platform"):
        Store(tmp_path / "state")
    store.close()
    Store(tmp_path / "state").close()


def test_a_file_that_is_no_database_says_so(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_text("This is no database, however long it is. " * 10)
    with pytest.raises(RuntimeError, match="not a state file"):
        Store(path)


def test_a_platforms_changes_make_the_same_platform(tmp_path: Path) -> None:
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
