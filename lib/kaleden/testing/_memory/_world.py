"""A platform in memory, in the event loop's time, with its sessions and its request handler."""

from __future__ import annotations

import copy
import random
import threading
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import parse_qsl

import anyio
import anyio.from_thread
from anyio.lowlevel import EventLoopToken, current_token
from attrs import define, field

from kaleden._wire import Request, Response
from kaleden.local import Platform, Session, Settings
from kaleden.local._api._service import ApiRequest, ApiResponse, Service
from kaleden.local._platform._create_params import Parameters
from kaleden.testing._memory._sessions import Script, SessionSimulator
from kaleden.testing._requests import classify_request

T = TypeVar("T")

GIB = 2**30

EPOCH: Final = 1_790_000_000.0
"""Seconds since the Unix epoch at which the event loop's clock shows 0."""

USER: Final = "local"


def make_large_platform() -> Platform:
    """Make a platform on which no session waits for resources, with the same ids on each run."""
    settings = Settings(millicores=10**9, ram=10**9 * GIB)
    return Platform(settings, random.Random(0))  # noqa: S311 - nothing is secret here


@define(eq=False)
class PlatformHistory:
    """The earlier states of a platform, as far back as the longest lag of a read."""

    max_lag: float
    _states: deque[tuple[float, Platform]] = field(
        init=False, factory=deque[tuple[float, Platform]]
    )

    def record(self, platform: Platform, now: float) -> None:
        if self.max_lag == 0:
            return
        # Do not copy the source of ids: the system's source cannot be copied, and no session is
        # created in an earlier state.
        state = copy.deepcopy(platform, {id(platform.rng): platform.rng})
        self._states.append((now, state))
        while len(self._states) > 1 and self._states[1][0] <= now - self.max_lag:
            self._states.popleft()

    def find_state(self, time: float) -> Platform:
        """Return the state of the platform at *time*, or its oldest recorded state."""
        known = [platform for recorded_at, platform in self._states if recorded_at <= time]
        return known[-1] if known else self._states[0][1]


@define(eq=False)
class World:
    """The platform, its simulated sessions, and its history.

    *max_lag* is the longest lag of a read, in seconds.
    """

    platform: Platform
    script: Script
    max_lag: float
    created: Counter[str] = field(init=False, factory=Counter[str])
    _simulator: SessionSimulator = field(init=False)
    _history: PlatformHistory = field(init=False)
    _token: EventLoopToken | None = field(init=False, default=None)
    _thread: int = field(init=False, factory=threading.get_ident)
    _closed_at: float | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self._simulator = SessionSimulator(self.platform, self.script, self._record)
        self._history = PlatformHistory(self.max_lag)

    def open(self) -> None:
        """Start the clock, in this event loop."""
        self._token = current_token()
        self._thread = threading.get_ident()
        self._record(self._now())

    def close(self) -> None:
        """Stop the clock."""
        self._closed_at = self._now()
        self._token = None

    def set_max_lag(self, seconds: float) -> None:
        """Set the longest lag of a read, in seconds, from now on."""
        self._history.max_lag = seconds
        if self._token is not None:
            self._run_in_loop(lambda: self._record(self._now()))

    def sessions(self) -> list[Session]:
        """Return the sessions on the platform now, oldest first."""
        return self._run_in_loop(self._list_sessions)

    def _run_in_loop(self, function: Callable[[], T]) -> T:
        """Call *function* in the event loop, which has the clock and makes all changes."""
        token = self._token
        if token is None or threading.get_ident() == self._thread:
            return function()
        return anyio.from_thread.run_sync(function, token=token)

    def _list_sessions(self) -> list[Session]:
        if self._token is not None or self._closed_at is not None:
            self._simulator.advance(self._now())
        return list(self.platform.of_user(USER))

    def handle(self, request: Request, lag: float = 0.0) -> Response:
        """Carry out a request. A read returns the state of *lag* seconds ago."""
        now = self._now()
        self._simulator.advance(now)
        if lag and request.method == "GET":
            read_at, platform = now - lag, self._history.find_state(now - lag)
        else:
            read_at, platform = now, self.platform
        service = Service(platform, "https://memory.invalid", Path)
        reply = service.handle(_parse_call(request, read_at))
        self._simulator.apply_orders(now)
        if request.method != "GET":
            self._record(now)
        if classify_request(request) == "create" and reply.status == 200:
            session = self.platform.find(USER, reply.body.decode().strip())
            assert session is not None  # noqa: S101 - it was created just now
            self.created[session.spec.name] += 1
        return self._make_response(reply, now)

    def _now(self) -> float:
        return EPOCH + anyio.current_time() if self._closed_at is None else self._closed_at

    def _record(self, now: float) -> None:
        self._history.record(self.platform, now)

    def _make_response(self, reply: ApiResponse, now: float) -> Response:
        headers = dict(reply.headers)
        if reply.content_type is not None:
            headers["content-type"] = reply.content_type
        # The file does not exist. Its name is the key of the session.
        log = "" if reply.file is None else self._simulator.read_log(reply.file.name, now)
        return Response(reply.status, headers, reply.body + log.encode())


def _parse_call(request: Request, now: float) -> ApiRequest:
    """Parse a request, as the HTTP layer of `kaleden.local` does."""
    path, _, query = request.target.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    pairs += parse_qsl(request.form.decode(), keep_blank_values=True)
    return ApiRequest(
        method=request.method,
        path=f"/v1/{path}" if request.versioned else f"/{path}",
        parameters=Parameters.from_pairs(pairs),
        user=USER,
        now=now,
        registry_secret=dict(request.headers).get("x-skaha-registry-auth"),
    )
