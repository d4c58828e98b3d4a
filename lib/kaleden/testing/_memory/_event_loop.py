"""Calls into an event loop from any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar, final

import anyio.from_thread
from anyio.lowlevel import current_token

T = TypeVar("T")


@final
class EventLoop:
    """The event loop in which this object is made."""

    def __init__(self) -> None:
        self._token = current_token()
        self._thread = threading.get_ident()

    def run_sync(self, function: Callable[[], T]) -> T:
        """Call *function* in the event loop. This may be called in any thread.

        Raises:
            RuntimeError: the event loop has ended.
        """
        if threading.get_ident() == self._thread:
            return function()

        return anyio.from_thread.run_sync(function, token=self._token)
