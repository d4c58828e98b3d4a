"""Peers in processes of their own, called from here."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import ByteSendStream
from anyio.streams.buffered import BufferedByteReceiveStream
from attrs import frozen

# Where `nox -s peers` says which interpreters the peers are installed for.
PYTHONS = {"canfar": "KALEDEN_PEER_CANFAR", "skaha": "KALEDEN_PEER_SKAHA"}
DRIVER = Path(__file__).with_name("drive.py")


def need(*peers: str) -> None:
    """Skip a test module unless these peers are installed."""
    if not all(PYTHONS[peer] in os.environ for peer in peers):
        reason = f"needs {' and '.join(peers)} installed apart, as `nox -s peers` does"
        pytest.skip(reason, allow_module_level=True)


class Raised(Exception):
    """A peer's method raised; the message is the exception's class."""


@frozen
class Client:
    """A client object of a peer: its methods are called there, and return what came of it."""

    _peer: Peer
    _path: str

    def __getattr__(self, method: str) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self._peer.call(self._path, method, args, kwargs)

        return call


@frozen
class Peer:
    """A process in which a peer's clients live."""

    requests: ByteSendStream
    answers: BufferedByteReceiveStream

    def client(self, path: str) -> Client:
        """Give the client that is an instance of the class of this dotted path."""
        return Client(self, path)

    async def tell(self, what: Any) -> None:
        await self.requests.send(json.dumps(what).encode() + b"\n")

    async def call(self, *what: Any) -> Any:
        with anyio.fail_after(60):
            await self.tell(what)
            answer = json.loads(await self.answers.receive_until(b"\n", 2**22))
        if "raised" in answer:
            raise Raised(answer["raised"])
        return answer["returned"]


@asynccontextmanager
async def start(
    python: str, home: Path, options: dict[str, Any], **variables: str
) -> AsyncGenerator[Peer]:
    """Start a peer that knows nothing of this user: no settings, no logins.

    It ends when its input does.

    Args:
        python: the interpreter that the peer is installed for.
        home: an empty directory.
        options: what its clients are constructed with.
        variables: what else is in its environment.
    """
    env = {"HOME": str(home), "PATH": os.defpath, **variables}
    async with await anyio.open_process([python, str(DRIVER)], env=env, stderr=None) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        peer = Peer(process.stdin, BufferedByteReceiveStream(process.stdout))
        await peer.tell(options)
        yield peer


async def until(session: Client, ids: list[str], *statuses: str) -> list[dict[str, Any]]:
    """Ask until each of the sessions has one of the statuses; return what the peer is told."""
    with anyio.fail_after(60):
        while True:
            infos: list[dict[str, Any]] = await session.info(ids)
            if ids == [info["id"] for info in infos if info["status"] in statuses]:
                return infos
            await anyio.sleep(0.02)


async def until_ended(session: Client, ids: list[str]) -> list[dict[str, Any]]:
    return await until(session, ids, "Completed", "Failed")
