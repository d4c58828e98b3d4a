"""An authority that makes certificates, once for all tests."""

from __future__ import annotations

import pytest

from login.certificates import Authority


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()
