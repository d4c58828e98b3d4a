"""An embedded platform in another process, for tests that kill their clients."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from attrs import frozen


@frozen
class Server:
    """The URL and the token of a platform."""

    url: str
    token: str


@frozen
class RunningServer(Server):
    """A platform that a test has started."""

    process: subprocess.Popen[str]


@contextmanager
def local_platform() -> Iterator[RunningServer]:
    """Run ``python -m kaleden.local`` until the end of the block."""
    command = [sys.executable, "-m", "kaleden.local"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        output = "".join(process.stdout.readline() for _ in range(2))
        try:
            found = re.search(r"listens at (\S+)\n.*token is (\S+)", output)
            assert found is not None, output
            yield RunningServer(found[1], found[2], process)
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate()
