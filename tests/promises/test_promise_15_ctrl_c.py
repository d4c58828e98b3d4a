"""Ctrl-C in a blocking call ends the sessions of the call before it raises KeyboardInterrupt."""

from __future__ import annotations

import signal
import subprocess
import sys

import anyio
import pytest

pytest.importorskip("anycorn")

import kaleden
from platforms import Server, local_platform
from support import PLAIN_BACKENDS

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="it sends signals")

PROGRAM = """if True:
    import sys
    import kaleden

    url, token, backend, call = sys.argv[1:]
    image = "skaha/astroml:latest"
    what = {"cmd": "sleep", "args": "600", "replicas": 3}
    with kaleden.Session(url, token, backend=backend) as session:
        try:
            if call == "run":
                session.run("fits", image, **what)
            else:
                with session.scope() as scope:
                    scope.wait(scope.create("fits", image, **what).ids)
        except KeyboardInterrupt:
            # The same client still works, and no session is left.
            print("left:", [str(info.status) for info in session.fetch()], flush=True)
            raise
"""


async def wait_until_running(server: Server, count: int) -> None:
    async with kaleden.AsyncSession(server.url, server.token) as session:
        with anyio.fail_after(60):
            while True:
                infos = await session.fetch(status="Running")
                if len(infos) == count:
                    return
                await anyio.sleep(0.02)


@pytest.mark.parametrize("call", ["run", "scope"])
@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_no_session_is_left_after_keyboard_interrupt(backend: str, call: str) -> None:
    with local_platform() as server:
        command = [sys.executable, "-c", PROGRAM, server.url, server.token, backend, call]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
            anyio.run(wait_until_running, server, 3)
            process.send_signal(signal.SIGINT)
            output, error = process.communicate(timeout=60)
    assert "left: []\n" == output, error
    assert error.rstrip().endswith("KeyboardInterrupt"), error
    assert process.returncode != 0
