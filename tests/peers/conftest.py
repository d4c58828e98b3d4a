"""Fixtures: a platform with a manual clock, a peer that uses it, and kaleden for checks."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from attrs import define

pytest.importorskip("anycorn")

import kaleden
from kaleden.local import LocalPlatform
from peers.remote import PYTHONS, Client, Peer, start
from support import PLAIN_BACKENDS


@define
class Clock:
    """A clock that is set by hand."""

    now: float = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=PLAIN_BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=list(PYTHONS))
def name(request: pytest.FixtureRequest) -> str:
    """Return the name of the peer. Modules for one peer override this fixture."""
    return str(request.param)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def platform(clock: Clock) -> AsyncGenerator[LocalPlatform]:
    async with LocalPlatform(cores=8, ram=16, user="ada", clock=clock, grace=0.1) as platform:
        yield platform


@pytest.fixture
async def ours(platform: LocalPlatform) -> AsyncGenerator[kaleden.AsyncSession]:
    async with kaleden.AsyncSession(platform.url, platform.token) as session:
        yield session


@pytest.fixture
async def peer(name: str, platform: LocalPlatform, tmp_path: Path) -> AsyncGenerator[Peer]:
    """Start the peer, configured for the platform by its usual method."""
    options: dict[str, Any] = {}
    variables = {}
    if name == "canfar":
        variables = {"CANFAR_URL": f"{platform.url}/v1", "CANFAR_TOKEN": platform.token}
    else:
        options = {"server": platform.url, "version": "v0", "token": platform.token}
    async with start(os.environ[PYTHONS[name]], tmp_path, options, **variables) as peer:
        yield peer


@pytest.fixture
def session(name: str, peer: Peer, anyio_backend_name: str) -> Client:
    """Return one of the peer's two session clients; each is tested on one backend."""
    module = {"canfar": "canfar.sessions", "skaha": "skaha.session"}[name]
    client = {"asyncio": "AsyncSession", "trio": "Session"}[anyio_backend_name]
    return peer.client(f"{module}.{client}")
