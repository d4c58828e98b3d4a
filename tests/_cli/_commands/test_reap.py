"""``kaleden reap``, as a user runs it."""

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

DEAD = evolve(get_this_owner("dead"), pid=2**22 + 1)
IMAGE = "skaha/astroml:latest"


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
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert server.token not in done.stdout + done.stderr
    return done


def start(server: Server, *names: str) -> list[str]:
    async def create() -> list[str]:
        async with kaleden.AsyncSession(server.url, server.token) as session:
            created = [await session.create(name, IMAGE, cmd="sleep", args="600") for name in names]
            return [one.raise_on_failure().ids[0] for one in created]

    return anyio.run(create)


def running(server: Server) -> set[str]:
    async def fetch() -> set[str]:
        async with kaleden.AsyncSession(server.url, server.token) as session:
            return {info.id for info in await session.fetch()}

    return anyio.run(fetch)


def write(
    server: Server, path: Path, token: str, session_id: str | None = None, owner: Owner = DEAD
) -> None:
    launch = OpenLaunch(token, f"fits-{token}", session_id, owner, f"{server.url}/v1", 0.0)
    append(path, encode(Event.LAUNCHED if session_id else Event.LAUNCHING, [launch]))


def test_it_ends_what_is_left_and_tells_it(server: Server, path: Path) -> None:
    known, found = start(server, "fits-t1", "fits-t2")
    write(server, path, "t1", known)
    write(server, path, "t2")
    write(server, path, "t3")
    done = reap(server, path)
    assert (0, "") == (done.returncode, done.stderr)
    assert f"left: fits-t1 ({known}), by process {DEAD.pid} of {DEAD.host}\n" in done.stdout
    assert "left: fits-t2 (no id known)" in done.stdout
    assert f"ended: {known}\n" in done.stdout
    assert f"ended: {found}\n" in done.stdout
    assert "ended: fits-t3\n" in done.stdout
    assert not {known, found} & running(server)
    again = reap(server, path)
    assert (0, "nothing is left that is to be ended\n") == (again.returncode, again.stdout)


def test_the_server_and_the_login_are_found_as_a_session_finds_them(
    server: Server, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANFAR_URL", server.url)
    monkeypatch.setenv("CANFAR_TOKEN", server.token)
    [left] = start(server, "fits-t1")
    write(server, path, "t1", left)
    command = [sys.executable, "-m", "kaleden", "reap", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (0, f"ended: {left}") == (done.returncode, done.stdout.splitlines()[-1])
    assert left not in running(server)


def test_a_machine_without_a_login_is_told_what_to_do(path: Path) -> None:
    command = [sys.executable, "-m", "kaleden", "reap", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert 0 != done.returncode
    assert "canfar login" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_dry_run_only_tells(server: Server, path: Path) -> None:
    [known] = start(server, "fits-t1")
    write(server, path, "t1", known)
    before = path.read_bytes()
    done = reap(server, path, "--dry-run")
    assert (1, "") == (done.returncode, done.stderr)
    assert known in done.stdout
    assert "ended" not in done.stdout
    assert known in running(server)
    assert before == path.read_bytes()
    assert 0 == reap(server, path).returncode


def test_it_tells_what_it_passes_over(server: Server, path: Path) -> None:
    elsewhere = evolve(DEAD, host="other", boot="another")
    write(server, path, "t1", "idalive1", get_this_owner("alive"))
    write(server, path, "t2", "idother1", elsewhere)
    write(Server("https://example.org/skaha", ""), path, "t3", "idserver")
    done = reap(server, path)
    assert (0, "") == (done.returncode, done.stderr)
    assert "1 launches of processes that live" in done.stdout
    assert "1 of other machines or containers (--elsewhere)" in done.stdout
    assert "what was launched on https://example.org/skaha/v1" in done.stdout
    done = reap(server, path, "--elsewhere")
    assert "ended: idother1" in done.stdout
    assert {"t1", "t3"} == {launch.token for launch in read_ledger(path)}


def test_it_fails_if_something_is_left(server: Server, path: Path) -> None:
    [theirs] = start(server, "fits")
    launch = OpenLaunch("t1", "fits", None, DEAD, f"{server.url}/v1", 0.0)
    append(path, encode(Event.LAUNCHING, [launch]))
    done = reap(server, path)
    assert 1 == done.returncode
    assert "failed: fits: " in done.stdout
    assert theirs in done.stdout
    assert theirs in running(server)


def test_it_tells_how_long_it_looks_for_what_may_yet_appear(server: Server, path: Path) -> None:
    launch = OpenLaunch("t1", "fits-t1", None, DEAD, f"{server.url}/v1", at=2**33)
    append(path, encode(Event.LAUNCHING, [launch]))
    done = reap(server, path, "--create-timeout", "1", "--settle", "0.2")
    assert "1 may yet appear: looking for them for up to 1 seconds" in done.stdout
    assert 0 == done.returncode


@pytest.mark.parametrize(
    ("path", "options", "words"),
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
def test_what_cannot_begin_says_why(
    server: Server, path: str, options: list[str], words: str
) -> None:
    done = reap(server, Path(path), *options)
    assert 2 == done.returncode
    assert words in done.stderr
    assert "Traceback" not in done.stderr
