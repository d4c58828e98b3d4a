"""The transports of the shared contract, and uvloop as one more event loop."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from _http.servers import LANES, Lane
from conftest import BACKENDS

LOOPS = list(BACKENDS)
if importlib.util.find_spec("uvloop") is not None:
    LOOPS.append(pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"))


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=LANES)
def lane(request: pytest.FixtureRequest) -> Lane:
    return LANES[request.param]
