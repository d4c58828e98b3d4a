"""A platform in memory, in the event loop's time: sessions, and answers to requests about them."""

from __future__ import annotations

import copy
import random
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import parse_qsl

import anyio
from attrs import define, field

from kaleden._wire import Request, Response
from kaleden.local import Platform, Session, Settings
from kaleden.local._api._service import ApiRequest, ApiResponse, Service
from kaleden.local._platform._create_params import Parameters
from kaleden.testing._memory._event_loop import Home
from kaleden.testing._memory._sessions import Machine, Script
from kaleden.testing._requests import request_kind

T = TypeVar("T")

GIB = 2**30

EPOCH: Final = 1_790_000_000.0
"""Seconds since the Unix epoch at which the event loop's clock shows 0."""

USER: Final = "local"


def large_platform() -> Platform:
    """Make a platform on which nobody waits for room; its ids are the same each time."""
    settings = Settings(millicores=10**9, ram=10**9 * GIB)
    return Platform(settings, random.Random(0))  # noqa: S311 - nothing is secret here


@define(eq=False)
class Past:
    """What a platform was like, as far back as somebody may look."""

    reach: float
    _states: deque[tuple[float, Platform]] = field(
        init=False, factory=deque[tuple[float, Platform]]
    )

    def remember(self, platform: Platform, now: float) -> None:
        if self.reach == 0:
            return
        # The source of ids is left as it is: the system's cannot be copied, and nothing is created
        # in the past.
        state = copy.deepcopy(platform, {id(platform.rng): platform.rng})
        self._states.append((now, state))
        while len(self._states) > 1 and self._states[1][0] <= now - self.reach:
            self._states.popleft()

    def recall(self, moment: float) -> Platform:
        """Give the platform as it was then."""
        known = [platform for time, platform in self._states if time <= moment]
        return known[-1] if known else self._states[0][1]


@define(eq=False)
class World:
    """The platform and what runs on it.

    Args:
        platform: the sessions.
        script: what they do.
        reach: how many seconds back somebody may look.
    """

    platform: Platform
    script: Script
    reach: float
    created: Counter[str] = field(init=False, factory=Counter[str])
    _machine: Machine = field(init=False)
    _past: Past = field(init=False)
    _home: Home | None = field(init=False, default=None)
    _closed: float | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self._machine = Machine(self.platform, self.script, self._remember)
        self._past = Past(self.reach)

    def open(self) -> None:
        """Begin, in this event loop."""
        self._home = Home()
        self._remember(self._now())

    def close(self) -> None:
        """Let no more time pass."""
        self._closed = self._now()
        self._home = None

    def look_back(self, seconds: float) -> None:
        """Let somebody look so far back, from now on."""
        self._past.reach = seconds
        if self._home is not None:
            self._at_home(lambda: self._remember(self._now()))

    def sessions(self) -> list[Session]:
        """List the sessions that are there now, oldest first."""
        return self._at_home(self._listed)

    def _at_home(self, function: Callable[[], T]) -> T:
        """Call *function* where time passes, and nobody changes anything meanwhile."""
        home = self._home
        return function() if home is None else home.call(function)

    def _listed(self) -> list[Session]:
        if self._home is not None or self._closed is not None:
            self._machine.advance(self._now())
        return list(self.platform.of_user(USER))

    def handle(self, request: Request, lag: float = 0.0) -> Response:
        """Do what a request asks for; what it reads is as it was *lag* seconds ago."""
        now = self._now()
        self._machine.advance(now)
        if lag and request.method == "GET":
            moment, platform = now - lag, self._past.recall(now - lag)
        else:
            moment, platform = now, self.platform
        reply = Service(platform, "https://memory.invalid", Path).handle(_call(request, moment))
        self._machine.settle(now)
        if request.method != "GET":
            self._remember(now)
        if request_kind(request) == "create" and reply.status == 200:
            self._count(reply)
        return self._response(reply, now)

    def _now(self) -> float:
        return EPOCH + anyio.current_time() if self._closed is None else self._closed

    def _remember(self, now: float) -> None:
        self._past.remember(self.platform, now)

    def _count(self, reply: ApiResponse) -> None:
        session = self.platform.find(USER, reply.body.decode().strip())
        assert session is not None  # noqa: S101 - it was created just now
        self.created[session.spec.name] += 1

    def _response(self, reply: ApiResponse, now: float) -> Response:
        headers = dict(reply.headers)
        if reply.content_type is not None:
            headers["content-type"] = reply.content_type
        # The file is none: its name is the session's.
        log = "" if reply.file is None else self._machine.log(reply.file.name, now)
        return Response(reply.status, headers, reply.body + log.encode())


def _call(request: Request, now: float) -> ApiRequest:
    """Undress a request as the server's HTTP half does."""
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
