"""Commands, called in this process or run in one of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest
from attrs import frozen

import kaleden
from kaleden._cli import main
from platforms import Server

COMMAND = [sys.executable, "-m", "kaleden"]
IMAGE = "skaha/astroml:latest"
NOWHERE = ["--url", "http://127.0.0.1:1/skaha", "--token", "secret"]
"""A server that nobody could ask: who refuses a command has not tried to."""


@frozen
class Done:
    """What a command came to."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON text that it printed."""
        return json.loads(self.out)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The JSON lines that it printed."""
        return [json.loads(line) for line in self.out.splitlines()]


def where(server: Server) -> list[str]:
    return ["--url", server.url, "--token", server.token]


class Caller:
    """Calls commands in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], server: Server | None = None) -> None:
        self._capsys = capsys
        self._server = server

    def __call__(self, *words: str) -> Done:
        added = [] if self._server is None else where(self._server)
        try:
            status = main([words[0], *added, *words[1:]])
        except SystemExit as error:  # argparse's
            status = error.code if isinstance(error.code, int) else -1
        captured = self._capsys.readouterr()
        assert "Traceback" not in captured.err
        return Done(status, captured.out, captured.err)


@contextmanager
def process(*words: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a command in a process of its own, which ends with the block."""
    pipe = subprocess.PIPE
    options = {"stdout": pipe, "stderr": pipe, "text": True, **options}
    with subprocess.Popen([*COMMAND, *words], **options) as running:
        try:
            yield running
        finally:
            running.kill()


def start(
    server: Server, name: str, cmd: str, args: str | None = None, count: int = 1
) -> list[str]:
    """Launch sessions that nobody ends."""

    async def create() -> list[str]:
        async with kaleden.AsyncSession(server.url, server.token) as session:
            created = await session.create(name, IMAGE, cmd=cmd, args=args, replicas=count)
            return created.raise_on_failure().ids

    return anyio.run(create)


def ended(server: Server, ids: list[str]) -> None:
    """Wait until sessions have ended."""

    async def wait() -> None:
        async with kaleden.AsyncSession(server.url, server.token) as session:
            (await session.wait(ids)).raise_on_failure()

    anyio.run(wait)


def names(server: Server) -> set[str]:
    """The names of the sessions that there are."""

    async def fetch() -> set[str]:
        async with kaleden.AsyncSession(server.url, server.token) as session:
            return {info.name for info in await session.fetch()}

    return anyio.run(fetch)
