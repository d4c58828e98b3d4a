"""Fixtures: an embedded platform, and callers of commands."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("anycorn")

from _cli.invocation import Caller
from platforms import Server, local_platform


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with local_platform() as running:
        yield running


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], server: Server) -> Caller:
    """Call a command on the embedded platform."""
    return Caller(capsys, server)


@pytest.fixture
def call_alone(capsys: pytest.CaptureFixture[str]) -> Caller:
    """Call a command without a URL or token."""
    return Caller(capsys)
