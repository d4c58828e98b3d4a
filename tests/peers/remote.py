"""Remote calls to peers, which run in separate processes."""

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

# The environment variables in which `nox -s peers` passes the interpreters of the peers.
PYTHONS = {"canfar": "KALEDEN_PEER_CANFAR", "skaha": "KALEDEN_PEER_SKAHA"}
DRIVER = Path(__file__).with_name("drive.py")


def require_peers(*peers: str) -> None:
    """Skip a test module unless these peers are installed."""
    if not all(PYTHONS[peer] in os.environ for peer in peers):
        reason = f"needs {' and '.join(peers)}, which `nox -s peers` installs separately"
        pytest.skip(reason, allow_module_level=True)


class Raised(Exception):
    """A method of a peer raised an exception. The message is the name of its class."""


@frozen
class Client:
    """A proxy for a client object of a peer: it forwards method calls and returns their results."""

    _peer: Peer
    _path: str

    def __getattr__(self, method: str) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self._peer.call(self._path, method, args, kwargs)

        return call


@frozen
class Peer:
    """The process with a peer's clients."""

    requests: ByteSendStream
    results: BufferedByteReceiveStream

    def client(self, path: str) -> Client:
        """Return the client of the class with this dotted path."""
        return Client(self, path)

    async def send(self, message: Any) -> None:
        await self.requests.send(json.dumps(message).encode() + b"\n")

    async def call(self, *message: Any) -> Any:
        with anyio.fail_after(60):
            await self.send(message)
            result = json.loads(await self.results.receive_until(b"\n", 2**22))
        if "raised" in result:
            raise Raised(result["raised"])
        return result["returned"]


@asynccontextmanager
async def start(
    python: str, home: Path, options: dict[str, Any], **variables: str
) -> AsyncGenerator[Peer]:
    """Start a peer without access to the settings and logins of this user.

    It ends at the end of its input.

    Args:
        python: the interpreter that the peer is installed for.
        home: an empty directory, used as the home directory.
        options: the arguments for the constructors of its clients.
        variables: further environment variables.
    """
    env = {"HOME": str(home), "PATH": os.defpath, **variables}
    async with await anyio.open_process([python, str(DRIVER)], env=env, stderr=None) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        peer = Peer(process.stdin, BufferedByteReceiveStream(process.stdout))
        await peer.send(options)
        yield peer


async def wait_for_status(session: Client, ids: list[str], *statuses: str) -> list[dict[str, Any]]:
    """Poll until each of the sessions has one of the statuses; return the peer's result."""
    with anyio.fail_after(60):
        while True:
            infos: list[dict[str, Any]] = await session.info(ids)
            if ids == [info["id"] for info in infos if info["status"] in statuses]:
                return infos
            await anyio.sleep(0.02)


async def wait_until_ended(session: Client, ids: list[str]) -> list[dict[str, Any]]:
    return await wait_for_status(session, ids, "Completed", "Failed")
