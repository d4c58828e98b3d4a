"""Fixtures of all tests; async tests run on each installed backend."""

from __future__ import annotations

import asyncio
import gc
import math
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from _auth.certificates import Authority
from support import HAS_TRIO

# No time limits: the load of the machine must not decide whether a test passes.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


def asyncio_loop() -> asyncio.AbstractEventLoop:
    """Create an event loop, in debug mode if KALEDEN_ASYNCIO_DEBUG is set (20 % slower)."""
    loop = asyncio.new_event_loop()
    loop.set_debug("KALEDEN_ASYNCIO_DEBUG" in os.environ)
    # Disable the warnings about slow callbacks, which a busy machine causes.
    loop.slow_callback_duration = math.inf
    return loop


def eager_loop() -> asyncio.AbstractEventLoop:
    """Create an event loop with eager tasks, which run at once up to their first await.

    Requires Python 3.12.
    """
    loop = asyncio.new_event_loop()
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
    return loop


BACKENDS = [pytest.param(("asyncio", {"loop_factory": asyncio_loop}), id="asyncio")]
if sys.version_info >= (3, 12):
    BACKENDS.append(pytest.param(("asyncio", {"loop_factory": eager_loop}), id="asyncio-eager"))
if HAS_TRIO:
    BACKENDS.append(pytest.param(("trio", {}), id="trio"))


def pytest_configure() -> None:
    """Handle signals that are ignored, as under ``nohup``, here and in programs of the tests."""
    # A child process inherits ignored signals, but not handlers.
    handlers = {
        "SIGHUP": lambda *_: None,
        "SIGINT": signal.default_int_handler,
        "SIGQUIT": lambda *_: None,
    }
    for name, handler in handlers.items():
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


def pytest_collection_finish() -> None:
    """Exclude the thousands of collected tests from garbage collections."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Use one worker more than processors, because many tests wait for another process."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (usable or 1) + 1


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Use an empty home directory, and an environment without logins and proxies."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    for name in list(os.environ):
        if name.startswith("CANFAR_") or name.upper().endswith("_PROXY"):
            monkeypatch.delenv(name)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    return home


@pytest.fixture(scope="session")
def authority() -> Authority:
    """Return a certificate authority, which all tests share."""
    return Authority()


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param
