"""Async tests in virtual time: the clock jumps to the next deadline, so no test waits."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from kaleden.testing import run_virtual
from support import PLAIN_BACKENDS


def in_virtual_time(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test on each backend from time 0; a deadlock fails the test."""

    def run(backend: Any, **others: Any) -> None:
        run_virtual(partial(test, **others), backend=backend)

    signature = inspect.signature(test)
    backend = inspect.Parameter("backend", inspect.Parameter.KEYWORD_ONLY)
    parameters = [*signature.parameters.values(), backend]
    run.__name__ = run.__qualname__ = test.__name__
    run.__module__ = test.__module__
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.pytestmark = getattr(test, "pytestmark", [])  # type: ignore[attr-defined]
    pytest.mark.parametrize("backend", PLAIN_BACKENDS)(run)
    return run
