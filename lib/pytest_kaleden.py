"""The pytest plugin of kaleden: fixtures that provide a platform for a test.

Fixtures: ``kaleden_platform``, a `kaleden.testing.Sandbox`; ``kaleden_session``, which opens a
session on it; ``kaleden_faults``, which injects faults. None of them is asynchronous, so they work
under anyio's plugin, pytest-asyncio, and ``trio.run`` in a plain function. They need the extra
``testing``.

The plugin is a module outside the package, and imports the package only when a test requests a
platform. Test suites that do not use it therefore have no overhead, and a coverage tool that starts
after the plugin measures the whole package.
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
kaleden(kind, **options): the platform for this test: "memory" or "local" (default: the value of \
--kaleden-platform), and options for kaleden.testing.Sandbox."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option ``--kaleden-platform``."""
    parser.getgroup("kaleden").addoption(
        "--kaleden-platform",
        choices=("memory", "local"),
        default="memory",
        help="the platform for tests that use kaleden: in memory, or a server with real processes",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker ``kaleden``."""
    config.addinivalue_line("markers", _MARKER)


@pytest.fixture
def kaleden_platform(request: pytest.FixtureRequest) -> Sandbox:
    """A platform for a single test: `kaleden.testing.Sandbox`."""
    from kaleden.testing import Sandbox  # noqa: PLC0415 - only when a test requests it

    kind: Any = request.config.getoption("--kaleden-platform")
    marker: pytest.Mark | None = request.node.get_closest_marker("kaleden")
    if marker is None:
        return Sandbox(kind)
    return Sandbox(*(marker.args or (kind,)), **marker.kwargs)


@pytest.fixture
def kaleden_faults(kaleden_platform: Sandbox) -> Faults:
    """The faults of this test's platform: `kaleden.testing.Faults`."""
    return kaleden_platform.faults


@pytest.fixture
def kaleden_session(
    kaleden_platform: Sandbox,
) -> Callable[..., AbstractAsyncContextManager[AsyncSession]]:
    """A function that opens a session on this platform, as an asynchronous context manager."""
    return kaleden_platform.session
