"""Helpers: a served platform with an HTTP client, and a clock that tests advance."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
from attrs import define

from kaleden.local import LocalPlatform
from support import FULL_IMAGE

SAFE = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:")


def escape_argument(argument: str) -> str:
    r"""Escape an argument in ``args`` so that it is unchanged by Java and YAML.

    For example, ``\\u0020`` becomes a space.
    """
    return "".join(c if c in SAFE else f"\\\\u{ord(c):04x}" for c in argument)


@define
class Clock:
    """A clock that does not move until the test advances it."""

    now: float = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now


@define
class ServedPlatform:
    """A served platform and its HTTP client."""

    platform: LocalPlatform
    http: httpx.AsyncClient

    async def create(self, *argv: str, **fields: Any) -> str:
        """Create a session with this command; return its id."""
        form: dict[str, Any] = {"name": "test", "image": FULL_IMAGE, **fields}
        if argv:
            form |= {"cmd": argv[0], "args": " ".join(map(escape_argument, argv[1:]))}
        if len(argv) == 1:
            del form["args"]
        response = await self.http.post("/v1/session", data=form)
        assert 200 == response.status_code, response.text
        return response.text.strip()

    async def get_info(self, id_: str) -> dict[str, Any]:
        response = await self.http.get(f"/v1/session/{id_}")
        assert 200 == response.status_code, response.text
        info: dict[str, Any] = response.json()
        return info

    async def get_view(self, id_: str, view: str) -> str:
        response = await self.http.get(f"/v1/session/{id_}", params={"view": view})
        assert 200 == response.status_code, response.text
        return response.text

    async def wait_for_status(self, id_: str, *statuses: str) -> dict[str, Any]:
        """Poll until the session has one of these statuses; fail if it ends with another."""

        async def has_status() -> bool:
            return (await self.get_info(id_))["status"] in {*statuses, "Completed", "Failed"}

        await self.poll(has_status)
        info = await self.get_info(id_)
        assert info["status"] in statuses, await self.get_view(id_, "logs")
        return info

    async def wait_for_log(self, id_: str, lines: int = 1) -> list[str]:
        """Poll until the session has written this many lines; return all of them."""

        async def has_lines() -> bool:
            return (await self.get_view(id_, "logs")).count("\n") >= lines

        await self.poll(has_lines)
        return (await self.get_view(id_, "logs")).splitlines()

    async def delete(self, id_: str) -> None:
        assert 200 == (await self.http.delete(f"/v1/session/{id_}")).status_code

    async def wait_until_idle(self) -> None:
        """Wait until no session has a process."""

        async def is_idle() -> bool:
            return self.platform.statistics().processes == 0

        await self.poll(is_idle)

    async def poll(self, condition: Callable[[], Awaitable[bool]]) -> None:
        """Poll until the condition is true, for at most 180 seconds."""
        with anyio.fail_after(180):
            while not await condition():  # noqa: ASYNC110 - the API sends no notifications
                await anyio.sleep(0.01)


@asynccontextmanager
async def serve(**options: Any) -> AsyncGenerator[ServedPlatform]:
    """Serve a `LocalPlatform` with these options."""
    async with LocalPlatform(**options) as platform:
        headers = {"Authorization": f"Bearer {platform.token}"}
        async with httpx.AsyncClient(base_url=platform.url, headers=headers) as http:
            yield ServedPlatform(platform, http)


def find_processes(id_: str) -> list[str]:
    """Return the command lines of the processes that have the session's id in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"/{id_}".encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found
