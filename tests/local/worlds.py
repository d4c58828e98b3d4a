"""A platform that is served, with a client of it; a clock that is set by hand."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
from attrs import define

from kaleden.local import LocalPlatform

IMAGE = "images.canfar.net/skaha/astroml:latest"
SAFE = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:")


def escaped(word: str) -> str:
    r"""One word of ``args``, such that it survives: ``\\x20`` comes out of YAML as a space."""
    return "".join(c if c in SAFE else f"\\\\u{ord(c):04x}" for c in word)


@define
class Clock:
    """Time that passes when it is told to."""

    now: float = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now


@define
class World:
    """A platform that is served, and a client of it."""

    platform: LocalPlatform
    http: httpx.AsyncClient

    async def create(self, *argv: str, **fields: Any) -> str:
        """Launch a session with this command; return its id."""
        form: dict[str, Any] = {"name": "test", "image": IMAGE, **fields}
        if argv:
            form |= {"cmd": argv[0], "args": " ".join(map(escaped, argv[1:]))}
        if len(argv) == 1:
            del form["args"]
        reply = await self.http.post("/v1/session", data=form)
        assert 200 == reply.status_code, reply.text
        return reply.text.strip()

    async def info(self, id_: str) -> dict[str, Any]:
        reply = await self.http.get(f"/v1/session/{id_}")
        assert 200 == reply.status_code, reply.text
        info: dict[str, Any] = reply.json()
        return info

    async def view(self, id_: str, view: str) -> str:
        reply = await self.http.get(f"/v1/session/{id_}", params={"view": view})
        assert 200 == reply.status_code, reply.text
        return reply.text

    async def until(self, id_: str, *statuses: str) -> dict[str, Any]:
        """Ask until the session has one of these statuses, or will never have one."""

        async def is_settled() -> bool:
            return (await self.info(id_))["status"] in {*statuses, "Completed", "Failed"}

        await self.poll(is_settled)
        info = await self.info(id_)
        assert info["status"] in statuses, await self.view(id_, "logs")
        return info

    async def until_log(self, id_: str, lines: int = 1) -> list[str]:
        """Ask until the session has written as many lines."""

        async def has_them() -> bool:
            return (await self.view(id_, "logs")).count("\n") >= lines

        await self.poll(has_them)
        return (await self.view(id_, "logs")).splitlines()

    async def delete(self, id_: str) -> None:
        assert 200 == (await self.http.delete(f"/v1/session/{id_}")).status_code

    async def until_idle(self) -> None:
        """Wait until no session has a process."""

        async def is_idle() -> bool:
            return self.platform.statistics().processes == 0

        await self.poll(is_idle)

    async def poll(self, question: Callable[[], Awaitable[bool]]) -> None:
        """Ask until the answer is yes."""
        with anyio.fail_after(180):
            while not await question():  # noqa: ASYNC110 - the API tells nothing by itself
                await anyio.sleep(0.01)


@asynccontextmanager
async def serve(**options: Any) -> AsyncGenerator[World]:
    """Serve a `LocalPlatform` with these options."""
    async with LocalPlatform(**options) as platform:
        headers = {"Authorization": f"Bearer {platform.token}"}
        async with httpx.AsyncClient(base_url=platform.url, headers=headers) as http:
            yield World(platform, http)


def carrying(id_: str) -> list[str]:
    """What runs on this machine with the id of the session in its environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"/{id_}".encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found
