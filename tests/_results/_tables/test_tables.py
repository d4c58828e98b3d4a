"""Tables of results: their contents, their display, and conversion for other libraries."""

from __future__ import annotations

import io
import json
import pickle
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import kaleden
from kaleden import (
    Event,
    Failure,
    FailureKind,
    FinishedSession,
    Outcomes,
    SessionInfo,
    SessionKind,
    SessionList,
    SessionStatus,
    Success,
)
from kaleden._results._tables import Tone
from kaleden._results._tables._columns import SESSION
from kaleden._results._tables._html import BACKGROUNDS, FOREGROUND
from support import data, described, session_object, session_on

SECRET = "https://example.org/session/notebook/abc?token=secret"
STARTED = datetime(2026, 1, 2, 3, 4, tzinfo=timezone(timedelta(hours=-8)))
INFO = SessionInfo(
    id="abc",
    name="fits-1-k3x9",
    kind=SessionKind.HEADLESS,
    status=SessionStatus.RUNNING,
    image="skaha/astroml:latest",
    start_time=STARTED,
    connect_url=SECRET,
    requested_ram=2**34,
    requested_cores=2.0,
    raw={"connectURL": SECRET},
)
LOST = Failure("xyz", FailureKind.NOT_FOUND, "no such <session>", 404, attempts=2, elapsed=0.5)
EVENTS = (Event("Normal", "Pulled", "image"), Event("Warning", "Failed", "no memory"))
FINISHED = FinishedSession(INFO, "first line\nlast line\n", EVENTS, 12.5)
RESULTS: dict[str, Any] = {
    "connect": SECRET,
    "create": "abc",
    "destroy": True,
    "events": EVENTS,
    "info": INFO,
    "logs": "first line\nlast line\n",
    "raw info": {"id": "abc", "status": "Running", "connectURL": SECRET, "message": "hello"},
    "reap": True,
    "renew": True,
    "run": FINISHED,
    "wait": INFO,
}
NAMES = ["key", "ok", "failure", "message", "http_status", "attempts", "elapsed"]
SESSION_NAMES = [column.name for column in SESSION]


def make_outcomes(operation: str) -> Outcomes[Any]:
    return Outcomes(operation, [Success("abc", RESULTS[operation]), LOST])


def list_columns(outcomes: Outcomes[Any]) -> list[str]:
    return list(outcomes.to_dicts()[0])


def read_cells(table: str) -> list[str]:
    """Return the text of each row of an HTML table, with ``|`` between the cells."""
    rows = re.findall("<tr>(.*?)</tr>", table)
    return [re.sub("(<[^>]*>)+", "|", row).strip("|") for row in rows]


@pytest.mark.parametrize(
    ("operation", "own"),
    [
        ("connect", []),
        ("create", ["id"]),
        ("destroy", []),
        ("events", ["events", "last_event"]),
        ("info", SESSION_NAMES),
        ("logs", ["log"]),
        ("raw info", ["id", "status", "message_"]),
        ("reap", []),
        ("renew", []),
        ("run", [*SESSION_NAMES, "log", "events", "last_event"]),
        ("wait", SESSION_NAMES),
    ],
)
def test_each_operation_has_its_columns(operation: str, own: list[str]) -> None:
    assert [*NAMES[:2], *own, *NAMES[2:]] == list_columns(make_outcomes(operation))
    if operation != "raw info":
        assert list_columns(make_outcomes(operation)) == list_columns(Outcomes(operation, [LOST]))


def test_session_columns_are_attributes_without_secrets() -> None:
    left_out = {"connect_url", "groups", "raw"}
    assert {*SESSION_NAMES} == {name for name in dir(INFO) if name[0] != "_"} - left_out


def test_row_has_the_outcome_of_a_session() -> None:
    well, lost = make_outcomes("info").to_dicts()
    assert {
        "key": "abc",
        "ok": True,
        "status": "Running",
        "requested_ram": 2**34,
        "start_time": datetime(2026, 1, 2, 11, 4, tzinfo=UTC),
        "failure": None,
        "attempts": 1,
    }.items() <= well.items()
    assert str is type(well["status"])
    assert UTC is well["start_time"].tzinfo
    expected = ["xyz", False, "not_found", "no such <session>", 404, 2, 0.5]
    assert expected == [lost[name] for name in NAMES]
    assert lost["id"] is None


def test_row_of_a_run_has_session_log_and_events() -> None:
    row = make_outcomes("run").to_dicts()[0]
    assert "first line\nlast line\n" == row["log"]
    assert (2, "Failed: no memory") == (row["events"], row["last_event"])
    assert "fits-1-k3x9" == row["name"]
    assert (0, None) == tuple(
        Outcomes("events", [Success("abc", ())]).to_dicts()[0][name]
        for name in ("events", "last_event")
    )


@pytest.mark.parametrize("operation", RESULTS)
def test_tables_omit_the_secret_of_a_page(operation: str) -> None:
    outcomes = make_outcomes(operation)
    assert "secret" not in repr(outcomes.to_dicts())
    assert "secret" not in outcomes._repr_html_()


def test_values_of_other_operations_are_unchanged() -> None:
    [row] = Outcomes("mine", [Success("a", [1, 2])]).to_dicts()
    assert [1, 2] == row["value"]
    assert "[1, 2]" in Outcomes("mine", [Success("a", [1, 2])])._repr_html_()


def test_tables_do_not_change_json() -> None:
    for operation in set(RESULTS) - {"raw info"}:
        outcomes = make_outcomes(operation)
        assert outcomes == Outcomes.from_json(outcomes.to_json())
        json.dumps(outcomes.to_dicts(), default=str)


# --- display -------------------------------------------------------------------------------------


def test_notebook_shows_key_state_and_known_values() -> None:
    heads, well, lost = read_cells(make_outcomes("info")._repr_html_())
    assert "key|state|name|kind|image|cores|memory|started (UTC)|message" == heads
    assert "abc|Running|fits-1-k3x9|headless|skaha/astroml:latest|2|16 GiB|2026-01-02 11:04" == well
    assert "xyz|not_found|no such &lt;session&gt;" == lost


def test_run_shows_the_last_line_of_each_log() -> None:
    outcomes = Outcomes[FinishedSession]("run", [Success("fits-1", FINISHED), LOST])
    heads, well, _ = read_cells(outcomes._repr_html_())
    assert "name" not in heads  # left out, as it starts with the key
    assert "|abc|" in well
    assert well.endswith("last line")
    assert "kind" not in heads  # left out beside a log
    assert "Failed: no memory" in make_outcomes("events")._repr_html_()


def test_image_is_shown_without_its_registry() -> None:
    for image in ("images.canfar.net/skaha/astroml:latest", "skaha/astroml:latest"):
        table = SessionList([SessionInfo(id="a", image=image, requested_gpus=0)])._repr_html_()
        assert '<td style="text-align:left">skaha/astroml:latest</td>' in table
        assert "GPUs" not in table


def test_each_state_has_a_legible_contrast() -> None:
    def luminance(colour: str) -> float:
        parts = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    assert set(Tone) == set(BACKGROUNDS)
    for ground in BACKGROUNDS.values():
        assert (luminance(FOREGROUND) + 0.05) / (luminance(ground) + 0.05) >= 4.5
    # Nothing else sets a colour, so the colours of the page apply.
    table = make_outcomes("info")._repr_html_()
    assert 2 == table.count("background-color:") == table.count("color:#ffffff")


@pytest.mark.parametrize(
    ("status", "tone"),
    [
        ("Pending", Tone.WAITING),
        ("running", Tone.BUSY),
        ("Succeeded", Tone.GOOD),
        ("Error", Tone.BAD),
        ("Terminating", Tone.OTHER),
        ("Hibernated", Tone.OTHER),
    ],
)
def test_states_have_colours(status: str, tone: Tone) -> None:
    table = SessionList([SessionInfo(id="a", status=SessionStatus(status))])._repr_html_()
    assert BACKGROUNDS[tone] in table


def test_failures_take_precedence_among_many_rows() -> None:
    outcomes = Outcomes[Any]("create", [*(Success(f"a{n}", "id") for n in range(200)), LOST])
    table = outcomes._repr_html_()
    assert 1 + 100 == table.count("<tr>")
    assert "… and 101 more" in table
    assert "xyz|not_found" in read_cells(table)[-1]
    failed = [SessionInfo(id=f"a{n}", status=SessionStatus.FAILED) for n in range(300)]
    table = SessionList([INFO, *failed])._repr_html_()
    assert "Running" not in "".join(read_cells(table))
    assert "… and 201 more" in table


@given(st.text())
def test_any_text_is_one_short_line_without_markup(text: str) -> None:
    outcomes = Outcomes[Any]("logs", [Success(text, text), Failure(text, FailureKind.QUOTA, text)])
    table = outcomes._repr_html_()
    tags = {"caption", "span", "table", "tbody", "td", "th", "thead", "tr"}
    assert set(re.findall("</?([^ >]+)", table)) == tags
    assert table.isprintable()
    assert len(table) < 3000


def test_tables_without_rows_have_a_caption() -> None:
    assert "info: 0 ok" in Outcomes("info", [])._repr_html_()
    assert "<th" not in SessionList()._repr_html_()


def test_terminal_shows_the_same_table() -> None:
    rich = pytest.importorskip("rich.console")
    screen = io.StringIO()
    console = rich.Console(file=screen, width=150, force_terminal=True, color_system="truecolor")
    console.print(make_outcomes("info"))
    console.print(SessionList([INFO]))
    console.print(Outcomes("logs", [Success("[red]a", "[bold]\x1b[5mlog")]))
    shown = screen.getvalue()
    assert "info: 1 ok, 1 failed (not_found=1)" in shown
    assert "\x1b[36mRunning" in shown
    assert "no such <session>" in shown
    assert "1 session: 1 Running" in shown
    assert "[red]a" in shown
    assert "[bold] [5mlog" in shown
    console.print(Outcomes("info", []))
    assert "info: 0 ok" in screen.getvalue()


# --- conversion for other libraries --------------------------------------------------------------


@pytest.mark.parametrize("operation", RESULTS)
def test_pandas_gets_types_and_units(operation: str) -> None:
    pytest.importorskip("pandas")
    frame = make_outcomes(operation).to_pandas()
    assert list_columns(make_outcomes(operation)) == list(frame.columns)
    assert operation == frame.attrs["method"]
    assert "s" == frame.attrs["units"]["elapsed"]
    assert ["abc", "xyz"] == frame["key"].tolist()
    if operation != "raw info":
        empty = Outcomes(operation, []).to_pandas()
        assert frame.dtypes.equals(empty.dtypes)
    if "requested_ram" in frame:
        assert "B" == frame.attrs["units"]["requested_ram"]
        assert 2**34 == frame["requested_ram"].sum()
        assert frame["start_time"].iloc[0] == STARTED
        assert frame["start_time"].isna().iloc[1]
        assert "Int64" == str(frame["requested_gpus"].dtype)


@pytest.mark.parametrize("operation", RESULTS)
def test_astropy_gets_units_descriptions_and_masks(operation: str) -> None:
    tables = pytest.importorskip("astropy.table")
    table = make_outcomes(operation).to_table()
    assert list_columns(make_outcomes(operation)) == table.colnames
    assert operation == table.meta["method"]
    assert "s" == str(table["elapsed"].unit)
    assert "time from its start to its outcome" == table["elapsed"].description
    assert "not_found" == table["failure"][1]
    assert table["failure"].mask[0]
    if "requested_ram" in table.colnames:
        assert 16 == tables.QTable(table)["requested_ram"][0].unmasked.to_value("Gibyte")
        assert "2026-01-02T11:04:00.000" == str(table["start_time"][0])
        assert table["start_time"].mask.tolist() == [False, True]
    assert (
        list_columns(make_outcomes(operation))[:2]
        == Outcomes(operation, []).to_table().colnames[:2]
    )


@pytest.mark.parametrize("kind", ["ecsv", "fits", "votable"])
def test_astropy_table_can_be_written_and_read(kind: str, tmp_path: Path) -> None:
    tables = pytest.importorskip("astropy.table")
    formats = {"ecsv": "ascii.ecsv"}
    path = tmp_path / f"sessions.{kind}"
    # Whether times can be written depends on the writers of the other formats.
    table = SessionList([INFO]).to_table()
    if kind != "ecsv":
        table.remove_columns(["start_time", "expiry_time"])
    table.write(path, format=formats.get(kind, kind))
    read = tables.Table.read(path, format=formats.get(kind, kind))
    assert table.colnames == read.colnames
    assert 2**34 == read["requested_ram"][0]
    assert "byte" == str(read["requested_ram"].unit)


@pytest.mark.parametrize(("method", "extra"), [("to_pandas", "pandas"), ("to_table", "astropy")])
def test_missing_library_is_reported_with_its_extra(
    method: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, extra, None)
    monkeypatch.setitem(sys.modules, f"{extra}.table", None)
    with pytest.raises(ImportError, match=re.escape(f"pip install 'kaleden[{extra}]'")):
        getattr(make_outcomes("info"), method)()


def test_missing_dependency_of_a_library_is_reported_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pandas.py").write_text("import surely_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pandas", raising=False)
    with pytest.raises(ModuleNotFoundError, match="surely_not_there"):
        make_outcomes("info").to_pandas()


def test_optional_libraries_are_imported_on_first_use() -> None:
    program = (
        "import sys, kaleden;"
        "kaleden.Outcomes('info', []).to_dicts(); kaleden.SessionList()._repr_html_();"
        "print([n for n in ('pandas', 'astropy', 'numpy', 'rich', 'tqdm') if n in sys.modules])"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "[]" == loaded.stdout.strip()


# --- lists of sessions ---------------------------------------------------------------------------


async def test_fetched_sessions_are_a_list_and_a_table() -> None:
    async def reply(_: Any) -> Any:
        return data([session_object("a"), session_object("b", status="Pending")])

    session, _ = session_on(reply)
    async with session:
        listed = await session.fetch()
        assert isinstance(listed, list)
        assert ["a", "b"] == [row["id"] for row in listed.to_dicts()]
        assert "2 sessions: 1 Running, 1 Pending" == listed.summary()
        assert listed == list(listed)
        assert 2 == len(await session.fetch(raw=True))
        apps = await session.apps("a")
        assert isinstance(apps, SessionList)


def test_session_list_survives_pickle() -> None:
    copy = pickle.loads(pickle.dumps(SessionList([INFO])))
    assert isinstance(copy, SessionList)
    assert [INFO] == copy
    assert kaleden.SessionList is SessionList


async def test_outcomes_of_a_client_are_tables() -> None:
    session, _ = session_on(described)
    async with session:
        outcomes = await session.info(["a", "b/c"])
    assert [True, False] == [row["ok"] for row in outcomes.to_dicts()]
    assert "invalid" == outcomes.to_dicts()[1]["failure"]


# A server may send a time that is out of range in UTC, and sizes that are too large.
ODD = Outcomes(
    "info",
    [
        Success(
            "abc",
            SessionInfo(
                id="abc",
                name="odd",
                kind=SessionKind.HEADLESS,
                status=SessionStatus.RUNNING,
                start_time=datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-8))),
                requested_ram=2**63,
                uid=2**63 - 1,
            ),
        )
    ],
)


def test_unrepresentable_value_is_missing_without_affecting_others() -> None:
    [row] = ODD.to_dicts()
    assert row["start_time"] is None
    assert 2**63 == row["requested_ram"]
    assert "odd" in ODD._repr_html_()


def test_pandas_treats_too_large_numbers_as_missing() -> None:
    pytest.importorskip("pandas")
    frame = ODD.to_pandas()
    assert frame["requested_ram"].isna().all()
    assert frame["start_time"].isna().all()
    assert 2**63 - 1 == frame["uid"][0]


def test_astropy_masks_too_large_numbers() -> None:
    pytest.importorskip("astropy.table")
    table = ODD.to_table()
    assert table["requested_ram"].mask.all()
    assert table["start_time"].mask.all()
    assert 2**63 - 1 == table["uid"][0]
