"""The transports that share one contract."""

from __future__ import annotations

import pytest

from transports.servers import LANES, Lane


@pytest.fixture(params=LANES)
def lane(request: pytest.FixtureRequest) -> Lane:
    return LANES[request.param]
