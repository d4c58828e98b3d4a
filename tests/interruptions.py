"""Programs that use `Session`, and helpers that interrupt them with SIGINT.

``python tests/interruptions.py 100`` interrupts each program 100 times.
"""

from __future__ import annotations

import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from kaleden import Session
from platforms import Server, local_platform
from support import IMAGE

GRACE = 60.0
"""Time limit of the clean-up in these programs, in seconds."""

START = f"""if True:
    import sys, kaleden
    url, token, backend, ledger = sys.argv[1:]
    grace = {GRACE}
    fits = dict(image="{IMAGE}", cmd="sleep", args="600", replicas=3)

    def show(statuses):
        print(*statuses, flush=True)

    session = kaleden.Session(url, token, backend=backend, ledger=ledger)
    session.fetch()
    print("ready", flush=True)
"""
RUN = (
    START
    + """
    session.run("fits", **fits, grace=grace, progress=show)
"""
)
NO_LEDGER = RUN.replace("ledger=ledger", "ledger=None")
SCOPE = (
    START
    + """
    with session:
        with session.scope(grace=grace) as outer:
            outer.create("outer", **fits)
            with session.scope(grace=grace) as scope:
                scope.wait(scope.create("fits", **fits), progress=show)
"""
)
INFO = (
    START
    + """
    session.info(f"id{n}" for n in range(1_000_000))
"""
)
STREAM = (
    START
    + """
    with session.stream.info(f"id{n}" for n in range(1_000_000)) as results:
        for number, outcome in enumerate(results):
            if number == 100:
                print("Running", flush=True)
"""
)
FOLLOW = (
    START
    + """
    with session.scope(grace=grace) as scope:
        with session.follow(scope.create("fits", **fits)) as lines:
            print("Running", flush=True)
            list(lines)
"""
)


@frozen
class ProgramExit:
    """The result of a program after a signal.

    Attributes:
        status: its exit status.
        stderr: its standard error.
    """

    status: int
    stderr: str

    @property
    def is_interruption(self) -> bool:
        """Whether the program exited with KeyboardInterrupt and no other exception."""
        raised = re.findall(r"^([A-Z][\w.]*)(?=:|$)", self.stderr, re.MULTILINE)
        return self.status == -signal.SIGINT and {"KeyboardInterrupt"} == {*raised}


@contextmanager
def start_program(
    text: str, server: Server, backend: str, ledger: Path
) -> Iterator[subprocess.Popen[str]]:
    """Start a program, wait until it is ready, and kill it at the end of the block."""
    command = [sys.executable, "-c", text, server.url, server.token, backend, str(ledger)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            read_until("ready", process.stdout)
            yield process
        finally:
            process.kill()


def read_until(text: str, lines: Iterable[str] | None) -> None:
    """Read lines up to one that contains *text*."""
    assert any(text in line for line in lines or ())


def interrupt(process: subprocess.Popen[str]) -> ProgramExit:
    """Send SIGINT, and wait for the program's end."""
    process.send_signal(signal.SIGINT)
    # The time-out is longer than `GRACE`: it only detects a program that hangs.
    stderr = process.communicate(timeout=100)[1]
    return ProgramExit(process.returncode, stderr)


def list_sessions(server: Server) -> list[str]:
    """Return the ids of all sessions."""
    with Session(server.url, server.token) as session:
        return [info.id for info in session.fetch()]


def interrupt_after(
    text: str, server: Server, backend: str, ledger: Path, seconds: float
) -> ProgramExit:
    """Interrupt a program some seconds after it is ready; it must run longer than that."""
    with start_program(text, server, backend, ledger) as process:
        time.sleep(seconds)
        return interrupt(process)


def main(trials: int) -> None:
    """Interrupt each program *trials* times, and check that no session is left."""
    rng = random.Random(0)
    with local_platform() as server, tempfile.TemporaryDirectory() as folder:
        for name, text in {"run": RUN, "info": INFO}.items():
            for backend in ("asyncio", "trio"):
                for number in range(trials // 2):
                    ledger = Path(folder, f"{name}-{backend}-{number}")
                    end = interrupt_after(text, server, backend, ledger, rng.uniform(0, 1.5))
                    assert end.is_interruption, end
                    assert [] == list_sessions(server), end
                print(  # noqa: T201  # This is also a program.
                    f"{name} on {backend}: {trials // 2} times, no session left", flush=True
                )


if __name__ == "__main__":
    main(int(sys.argv[1]))
