"""Fixtures that the tests of `Session` share."""

from __future__ import annotations

from typing import Any

import pytest

from support import PLAIN_BACKENDS


@pytest.fixture(params=PLAIN_BACKENDS)
def backend(request: pytest.FixtureRequest) -> Any:
    return request.param
