"""aiohttp, used directly, with as many connections as workers."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from benchmarks.drivers.child import HEADERS, Client, Job
from benchmarks.drivers.play import play


class Aiohttp(Client):
    """An open `ClientSession`."""

    def __init__(self, session: Any, job: Job) -> None:
        self.session = session
        super().__init__(job)

    async def one(self, key: str) -> Any:
        async with self.session.get(self.url(key), raise_for_status=True) as response:
            return await response.json()


@asynccontextmanager
async def open_client(job: Job) -> AsyncGenerator[Aiohttp]:
    """Open a session with as many connections as workers."""
    context = ssl.create_default_context(cafile=job.cafile) if job.cafile else True
    connector = aiohttp.TCPConnector(limit=job.concurrency, ssl=context)
    async with aiohttp.ClientSession(connector=connector, headers=HEADERS) as session:
        yield Aiohttp(session, job)


if __name__ == "__main__":
    play(open_client)
