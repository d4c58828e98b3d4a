"""The pytest plugin of kaleden: a platform for each test that asks for one.

Fixtures: ``kaleden_platform``, a `kaleden.testing.Sandbox`; ``kaleden_session``, to open a session
on it; ``kaleden_faults``, to say what goes wrong. None of them is asynchronous, so they work under
anyio's plugin, pytest-asyncio, and ``trio.run`` in a plain function. They need the extra
``testing``.

It stands beside the package, and imports that only when a test asks for a platform: suites that do
not use it pay nothing, and a coverage tool that is started later still sees all.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from kaleden import AsyncSession
    from kaleden.testing import Faults, Sandbox

_MARKER = """\
kaleden(kind, **options): the platform that this test gets: "memory" or "local" (default: as \
--kaleden-platform says), and options for kaleden.testing.Sandbox."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take the choice between the platforms."""
    parser.getgroup("kaleden").addoption(
        "--kaleden-platform",
        choices=("memory", "local"),
        default="memory",
        help="the platform of tests that use kaleden: in memory, or a server with real processes",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", _MARKER)


@pytest.fixture
def kaleden_platform(request: pytest.FixtureRequest) -> Sandbox:
    """A platform for this test only: `kaleden.testing.Sandbox`."""
    from kaleden.testing import Sandbox  # noqa: PLC0415 - not before a test asks

    kind: Any = request.config.getoption("--kaleden-platform")
    marker: pytest.Mark | None = request.node.get_closest_marker("kaleden")
    if marker is None:
        return Sandbox(kind)
    return Sandbox(*(marker.args or (kind,)), **marker.kwargs)


@pytest.fixture
def kaleden_faults(kaleden_platform: Sandbox) -> Faults:
    """What goes wrong on this test's platform: `kaleden.testing.Faults`."""
    return kaleden_platform.faults


@pytest.fixture
def kaleden_session(
    kaleden_platform: Sandbox,
) -> Callable[..., AbstractAsyncContextManager[AsyncSession]]:
    """A function that opens a session on this platform, as an asynchronous context manager."""
    return kaleden_platform.session
