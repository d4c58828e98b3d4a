"""Launches, errors and signals that the tests of `Session` share."""

from __future__ import annotations

import signal
import sys
import threading
from typing import Any

import pytest

from support import FULL_IMAGE

QUICK: dict[str, Any] = {"latency": 0.0, "start_delay": 0.0, "duration": 0.005}
"""Options of a platform in memory, for sessions that end soon."""

FITS: dict[str, Any] = {"image": FULL_IMAGE, "cmd": "echo", "replicas": 2}

posix = pytest.mark.skipif(sys.platform == "win32", reason="the signals of POSIX systems")


class CallerError(Exception):
    """An error of the caller's code."""


class CallerInterrupt(BaseException):
    """An exception of the caller's code that is not an `Exception`."""


def interrupt() -> None:
    """Send Ctrl-C to the main thread; to the process, it might not interrupt the thread's wait."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
