"""Calling commands in this process, and starting them in new processes."""

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
from support import IMAGE

COMMAND = [sys.executable, "-m", "kaleden"]

UNREACHABLE = ["--url", "http://127.0.0.1:1/skaha", "--token", "secret"]
"""A server without a listener: a command that fails with status 2 has sent no request."""


@frozen
class Result:
    """The exit status and the output of a command."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The JSON document on standard output."""
        return json.loads(self.out)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The JSON lines on standard output."""
        return [json.loads(line) for line in self.out.splitlines()]


def connection_options(server: Server) -> list[str]:
    return ["--url", server.url, "--token", server.token]


class Caller:
    """Calls commands in this process.

    Args:
        capsys: captures their output.
        server: its URL and token are added to the arguments; None adds nothing.
    """

    def __init__(self, capsys: pytest.CaptureFixture[str], server: Server | None = None) -> None:
        self._capsys = capsys
        self._server = server

    def __call__(self, command: str, *arguments: str) -> Result:
        added = [] if self._server is None else connection_options(self._server)
        try:
            status = main([command, *added, *arguments])
        except SystemExit as error:  # Raised by argparse.
            status = error.code if isinstance(error.code, int) else -1
        captured = self._capsys.readouterr()
        assert "Traceback" not in captured.err
        return Result(status, captured.out, captured.err)


@contextmanager
def start_process(*arguments: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a command in a new process, and kill it at the end of the block."""
    pipe = subprocess.PIPE
    options = {"stdout": pipe, "stderr": pipe, "text": True, **options}
    with subprocess.Popen([*COMMAND, *arguments], **options) as running:
        try:
            yield running
        finally:
            running.kill()


def start_sessions(
    server: Server, name: str, cmd: str, args: str | None = None, count: int = 1
) -> list[str]:
    """Launch sessions without a scope, and return their ids."""

    async def create() -> list[str]:
        async with kaleden.AsyncSession(server.url, server.token) as session:
            created = await session.create(name, IMAGE, cmd=cmd, args=args, replicas=count)
            return created.raise_on_failure().ids

    return anyio.run(create)


def wait_until_ended(server: Server, ids: list[str]) -> None:
    """Wait until sessions have ended."""

    async def wait() -> None:
        async with kaleden.AsyncSession(server.url, server.token) as session:
            (await session.wait(ids)).raise_on_failure()

    anyio.run(wait)


def list_names(server: Server) -> set[str]:
    """Return the names of all sessions."""

    async def fetch() -> set[str]:
        async with kaleden.AsyncSession(server.url, server.token) as session:
            return {info.name for info in await session.fetch()}

    return anyio.run(fetch)
