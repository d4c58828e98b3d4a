"""One embedded platform for all commands, and the ways to call them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("anycorn")

from _cli.called import Caller
from platforms import Server, local_platform


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with local_platform() as running:
        yield running


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], server: Server) -> Caller:
    """Calls a command on the platform."""
    return Caller(capsys, server)


@pytest.fixture
def call_alone(capsys: pytest.CaptureFixture[str]) -> Caller:
    """Calls a command without saying where."""
    return Caller(capsys)
