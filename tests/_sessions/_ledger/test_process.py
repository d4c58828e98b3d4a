"""The identity of owners, and whether their processes are alive."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import evolve

from kaleden._sessions._ledger import _process
from kaleden._sessions._ledger._process import (
    Owner,
    ProcessStatus,
    find_process_status,
    find_status,
    get_this_owner,
    query_ps,
    read_start_time,
)

SLEEP = "/bin/sleep"
ROOT_NAMESPACE = "pid:[4026531836]"
HERE = Owner("login1", "3f9a", "boot-2", ROOT_NAMESPACE, 100, "500", "")
NO_SUCH_PID = 2**22 + 1
"""More than the largest pid of Linux."""


@contextmanager
def run_sleep(program: str = SLEEP) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that does nothing until it is killed."""
    process = subprocess.Popen([program, "600"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def get_owner(pid: int) -> Owner:
    started = read_start_time(pid)
    assert started is not None
    return evolve(get_this_owner("other"), pid=pid, started=started)


def test_this_process_is_alive() -> None:
    assert ProcessStatus.ALIVE is find_process_status(get_this_owner("a"))


def test_clients_of_one_process_are_different_owners() -> None:
    assert get_this_owner("a") == get_this_owner("a")
    assert get_this_owner("a") != get_this_owner("b")


def test_another_process_is_alive_until_it_is_killed() -> None:
    with run_sleep() as process:
        owner = get_owner(process.pid)
        assert ProcessStatus.ALIVE is find_process_status(owner)
        process.kill()
        process.wait()
        assert ProcessStatus.DEAD is find_process_status(owner)


def test_zombie_process_is_dead() -> None:
    with run_sleep() as process:
        owner = get_owner(process.pid)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert ProcessStatus.DEAD is find_process_status(owner)
        assert query_ps(process.pid) is None


def test_reused_pid_is_not_the_owner() -> None:
    owner = get_this_owner("a")
    assert ProcessStatus.DEAD is find_process_status(evolve(owner, started=owner.started + "0"))


def test_unused_pid_is_dead() -> None:
    assert ProcessStatus.DEAD is find_process_status(evolve(get_this_owner("a"), pid=NO_SUCH_PID))


def test_start_time_is_read_for_any_program_name(tmp_path: Path) -> None:
    program = tmp_path / ") Z 1 2 ("
    program.symlink_to(SLEEP)
    with run_sleep() as plain, run_sleep(str(program)) as odd:
        assert int(read_start_time(plain.pid) or 0) <= int(read_start_time(odd.pid) or 0)


def test_forked_child_is_another_owner() -> None:
    script = """if True:
        import json, os
        from attrs import asdict
        from kaleden._sessions._ledger._process import get_this_owner
        print(json.dumps(asdict(get_this_owner("a"))), flush=True)
        if os.fork() == 0:
            print(json.dumps(asdict(get_this_owner("a"))), flush=True)
            os._exit(0)
        os.wait()
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    parent, child = (Owner(**json.loads(line)) for line in done.stdout.splitlines())
    assert parent.pid != child.pid
    assert evolve(parent, pid=child.pid, started=child.started) == child


@pytest.mark.parametrize(
    ("owner", "expected"),
    [
        (evolve(HERE, boot="boot-1"), ProcessStatus.DEAD),
        (evolve(HERE, boot="boot-1", host="login2"), ProcessStatus.UNKNOWN),
        (evolve(HERE, boot="boot-1", machine="77aa"), ProcessStatus.UNKNOWN),
        (evolve(HERE, boot="boot-1", machine=""), ProcessStatus.UNKNOWN),
        (evolve(HERE, boot="boot-1", pid_namespace="pid:[4026532201]"), ProcessStatus.UNKNOWN),
        (evolve(HERE, pid_namespace="pid:[4026532201]"), ProcessStatus.UNKNOWN),
        (evolve(HERE, started=""), ProcessStatus.UNKNOWN),
        (evolve(HERE, pid=NO_SUCH_PID), ProcessStatus.DEAD),
        (evolve(HERE, pid=NO_SUCH_PID, host="renamed"), ProcessStatus.DEAD),
    ],
    ids=[
        "before the last boot of this machine",
        "on another machine",
        "on another machine of this name",
        "on an unknown machine of this name",
        "in a container, before the last boot",
        "in a container of this machine",
        "a process that did not know when it started",
        "a process that is gone",
        "a process that is gone, before the machine was renamed",
    ],
)
def test_only_owner_that_is_certainly_gone_is_dead(owner: Owner, expected: ProcessStatus) -> None:
    assert expected is find_status(owner, HERE)


def test_containers_of_one_name_are_not_the_same_machine() -> None:
    pod = evolve(HERE, pid_namespace="pid:[4026532201]")
    assert ProcessStatus.UNKNOWN is find_status(evolve(pod, boot="boot-1"), pod)


def test_machines_without_an_id_are_not_the_same_machine() -> None:
    nameless = evolve(HERE, machine="")
    assert ProcessStatus.UNKNOWN is find_status(evolve(nameless, boot="boot-1"), nameless)


def test_process_without_proc_is_identified_by_host_and_start_time() -> None:
    here = evolve(HERE, machine="", boot="", pid_namespace="")
    assert ProcessStatus.DEAD is find_status(evolve(here, pid=NO_SUCH_PID), here)
    assert ProcessStatus.UNKNOWN is find_status(evolve(here, pid=NO_SUCH_PID, host="other"), here)


def test_start_time_without_proc_is_read_from_ps(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(_process, "_PROC", tmp_path)
    with run_sleep() as process:
        assert read_start_time(process.pid)
    assert read_start_time(process.pid) is None


def test_ps_runs_with_a_fixed_locale_and_time_zone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ps = tmp_path / "ps"
    ps.write_text('#!/bin/sh\necho "Ss+  $LC_ALL $TZ $*"\n')
    ps.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    monkeypatch.setenv("LC_ALL", "fr_CA.UTF-8")
    assert "C UTC -o stat= -o lstart= -p 123" == query_ps(123)


def test_status_without_proc_and_ps_is_unknown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    owner = get_this_owner("a")
    monkeypatch.setattr(_process, "_PROC", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not query_ps(os.getpid())
    assert query_ps(os.getpid()) is not None
    assert ProcessStatus.UNKNOWN is find_status(owner, owner)


def test_owner_does_not_reveal_the_machine_id() -> None:
    machine_id = Path("/etc/machine-id")
    if not machine_id.exists():
        pytest.skip("this machine has none")
    assert machine_id.read_text().strip() not in repr(get_this_owner("a"))
