"""Parsl programs that fail, are interrupted or do not close the provider leave no session."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

pytest.importorskip("anycorn")
pytest.importorskip("parsl")

from interruptions import list_sessions, read_until
from platforms import Server, local_platform

pytestmark = pytest.mark.slow

BEGIN = """if True:
    import logging, sys
    import parsl
    from parsl.config import Config
    from parsl.executors import HighThroughputExecutor
    from kaleden.parsl import SkahaProvider

    @parsl.python_app
    def nap(seconds):
        import time
        time.sleep(seconds)

    provider = SkahaProvider("skaha/astroml:latest", init_blocks=2, max_blocks=2)
    executor = HighThroughputExecutor(
        provider=provider, max_workers_per_node=1, address="127.0.0.1", encrypted=False
    )
    config = Config(executors=[executor], strategy_period=0.5)

    def begin():
        nap(0).result()
        # Both blocks exist and run tasks.
        assert 2 == len(provider.resources)
        napping = nap(1000)
        print("ready", flush=True)
        return napping
"""
RAISES = (
    BEGIN
    + """
    with provider, parsl.load(config):
        begin()
        raise ValueError("of the program")
"""
)
INTERRUPTED = (
    BEGIN
    + """
    with provider, parsl.load(config):
        begin().result()
"""
)
NOT_CLOSED = (
    BEGIN
    + """
    parsl.load(config)
    begin()
    # Parsl kills this process at the end of its own clean-up, which is not reached.
    executor.interchange_proc.kill()
"""
)
DEAD_INTERCHANGE = (
    BEGIN
    + """
    handler = logging.StreamHandler(sys.stdout)
    handler.addFilter(lambda record: "Closing job status poller" in record.getMessage())
    logging.getLogger("parsl").addHandler(handler)
    with provider, parsl.load(config):
        napping = begin()
        executor.interchange_proc.kill()
        executor.interchange_proc.wait()
        print("dead", flush=True)
        napping.result()
"""
)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with local_platform() as server:
        yield server


@contextmanager
def run_program(text: str, server: Server, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a program in a separate process group; yield when its workers run tasks."""
    env = {**os.environ, "CANFAR_URL": server.url, "CANFAR_TOKEN": server.token}
    # Parsl looks up its own programs on the PATH.
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", "")])
    with (folder / "errors").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", text],
            cwd=folder,
            env=env,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
            text=True,
        )
    with process:
        try:
            read_until("ready", process.stdout)
            yield process
            process.wait()
        finally:
            # Parsl leaves its interchange process running if it does not clean up.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def read_errors(folder: Path) -> str:
    return (folder / "errors").read_text()


def test_error_in_the_block_ends_the_sessions(server: Server, tmp_path: Path) -> None:
    with run_program(RAISES, server, tmp_path) as process:
        pass
    assert 1 == process.returncode
    assert "ValueError: of the program" in read_errors(tmp_path)
    assert [] == list_sessions(server)


def test_interruption_ends_the_sessions(server: Server, tmp_path: Path) -> None:
    with run_program(INTERRUPTED, server, tmp_path) as process:
        process.send_signal(signal.SIGINT)
    assert -signal.SIGINT == process.returncode, read_errors(tmp_path)
    assert [] == list_sessions(server)


def test_end_of_the_program_ends_the_sessions_of_an_unclosed_provider(
    server: Server, tmp_path: Path
) -> None:
    with run_program(NOT_CLOSED, server, tmp_path) as process:
        pass
    assert 0 == process.returncode, read_errors(tmp_path)
    assert [] == list_sessions(server)


def test_dead_interchange_leaves_no_session(server: Server, tmp_path: Path) -> None:
    with run_program(DEAD_INTERCHANGE, server, tmp_path) as process:
        read_until("dead", process.stdout)
        process.send_signal(signal.SIGINT)
        # From here on Parsl waits for a response of the dead interchange.
        read_until("Closing job status poller", process.stdout)
        process.send_signal(signal.SIGINT)
    assert -signal.SIGINT == process.returncode, read_errors(tmp_path)
    assert [] == list_sessions(server)
