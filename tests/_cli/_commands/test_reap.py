"""``kaleden reap`` in a new process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from attrs import evolve

pytest.importorskip("anycorn")

import kaleden
from kaleden._sessions._ledger._file import Event, OpenLaunch, append, encode, read_ledger
from kaleden._sessions._ledger._process import Owner, get_this_owner
from platforms import Server, local_platform
from support import IMAGE

DEAD = evolve(get_this_owner("dead"), pid=2**22 + 1)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with local_platform() as running:
        yield running


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "ledger").touch()
    return tmp_path / "ledger"


def reap(server: Server, path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    where = ["--url", server.url, "--token", server.token]
    command = [sys.executable, "-m", "kaleden", "reap", str(path), *where, *options]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert server.token not in result.stdout + result.stderr
    return result


def start(server: Server, *names: str) -> list[str]:
    async def create() -> list[str]:
        async with kaleden.AsyncSession(server.url, server.token) as session:
            created = [await session.create(name, IMAGE, cmd="sleep", args="600") for name in names]
            return [one.raise_on_failure().ids[0] for one in created]

    return anyio.run(create)


def list_ids(server: Server) -> set[str]:
    async def fetch() -> set[str]:
        async with kaleden.AsyncSession(server.url, server.token) as session:
            return {info.id for info in await session.fetch()}

    return anyio.run(fetch)


def write_launch(
    server: Server, path: Path, token: str, session_id: str | None = None, owner: Owner = DEAD
) -> None:
    launch = OpenLaunch(token, f"fits-{token}", session_id, owner, f"{server.url}/v1", 0.0)
    append(path, encode(Event.LAUNCHED if session_id else Event.LAUNCHING, [launch]))


def test_sessions_that_are_left_are_ended_and_listed(server: Server, path: Path) -> None:
    known, found = start(server, "fits-t1", "fits-t2")
    write_launch(server, path, "t1", known)
    write_launch(server, path, "t2")
    write_launch(server, path, "t3")
    result = reap(server, path)
    assert (0, "") == (result.returncode, result.stderr)
    assert f"left: fits-t1 ({known}), by process {DEAD.pid} of {DEAD.host}\n" in result.stdout
    assert "left: fits-t2 (id unknown)" in result.stdout
    assert f"ended: {known}\n" in result.stdout
    assert f"ended: {found}\n" in result.stdout
    assert "ended: fits-t3\n" in result.stdout
    assert not {known, found} & list_ids(server)
    again = reap(server, path)
    assert (0, "no sessions to end\n") == (again.returncode, again.stdout)


def test_server_and_login_are_read_from_environment(
    server: Server, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANFAR_URL", server.url)
    monkeypatch.setenv("CANFAR_TOKEN", server.token)
    [left] = start(server, "fits-t1")
    write_launch(server, path, "t1", left)
    command = [sys.executable, "-m", "kaleden", "reap", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (0, f"ended: {left}") == (result.returncode, result.stdout.splitlines()[-1])
    assert left not in list_ids(server)


def test_missing_login_is_explained(path: Path) -> None:
    command = [sys.executable, "-m", "kaleden", "reap", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert 0 != result.returncode
    assert "canfar login" in result.stderr
    assert "Traceback" not in result.stderr


def test_dry_run_ends_nothing(server: Server, path: Path) -> None:
    [known] = start(server, "fits-t1")
    write_launch(server, path, "t1", known)
    before = path.read_bytes()
    result = reap(server, path, "--dry-run")
    assert (1, "") == (result.returncode, result.stderr)
    assert known in result.stdout
    assert "ended" not in result.stdout
    assert known in list_ids(server)
    assert before == path.read_bytes()
    assert 0 == reap(server, path).returncode


def test_skipped_launches_are_reported(server: Server, path: Path) -> None:
    elsewhere = evolve(DEAD, host="other", boot="another")
    write_launch(server, path, "t1", "idalive1", get_this_owner("alive"))
    write_launch(server, path, "t2", "idother1", elsewhere)
    write_launch(Server("https://example.org/skaha", ""), path, "t3", "idserver")
    result = reap(server, path)
    assert (0, "") == (result.returncode, result.stderr)
    assert "skipped: 1 of processes that still run" in result.stdout
    assert "1 of other machines or containers (--elsewhere)" in result.stdout
    assert "skipped: sessions of https://example.org/skaha/v1" in result.stdout
    result = reap(server, path, "--elsewhere")
    assert "ended: idother1" in result.stdout
    assert {"t1", "t3"} == {launch.token for launch in read_ledger(path)}


def test_ambiguous_name_exits_with_status_1(server: Server, path: Path) -> None:
    [theirs] = start(server, "fits")
    launch = OpenLaunch("t1", "fits", None, DEAD, f"{server.url}/v1", 0.0)
    append(path, encode(Event.LAUNCHING, [launch]))
    result = reap(server, path)
    assert 1 == result.returncode
    assert "failed: fits: " in result.stdout
    assert theirs in result.stdout
    assert theirs in list_ids(server)


def test_longest_wait_is_printed(server: Server, path: Path) -> None:
    launch = OpenLaunch("t1", "fits-t1", None, DEAD, f"{server.url}/v1", at=2**33)
    append(path, encode(Event.LAUNCHING, [launch]))
    result = reap(server, path, "--create-timeout", "1", "--settle", "0.2")
    assert "1 may still appear: waiting for up to 1 seconds" in result.stdout
    assert 0 == result.returncode


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("/nonexistent/ledger", [], "No such file"),
        (__file__, [], "is not a ledger"),
        ("/dev/null", ["--settle", "-1"], "--settle"),
        ("/dev/null", ["--settle", "nan"], "--settle"),
        ("/dev/null", ["--url", "http://example.org/skaha"], "use https"),
        ("/dev/null", ["--url", "nowhere"], "no server's URL"),
    ],
    ids=["ledger", "other", "negative", "nan", "http", "url"],
)
def test_invalid_input_is_explained(
    server: Server, path: str, options: list[str], message: str
) -> None:
    result = reap(server, Path(path), *options)
    assert 2 == result.returncode
    assert message in result.stderr
    assert "Traceback" not in result.stderr
