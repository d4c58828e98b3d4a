"""A fixture for each backend that is installed."""

from __future__ import annotations

import pytest

from kaleden.testing._clock import Backend
from support import PLAIN_BACKENDS


@pytest.fixture(params=PLAIN_BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    name: Backend = request.param
    return name
