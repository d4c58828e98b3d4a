"""httpx or httpx2, which has the same interface, with as many connections as workers.

The arguments are the name of the module and, optionally, of a module with another transport for it.
"""

from __future__ import annotations

import importlib
import ssl
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.drivers.child import HEADERS, Client, Job
from benchmarks.drivers.play import play


class Httpx(Client):
    """An open `AsyncClient`."""

    def __init__(self, client: Any, job: Job) -> None:
        self.client = client
        super().__init__(job)

    async def one(self, key: str) -> Any:
        response = await self.client.get(self.url(key))
        response.raise_for_status()
        return response.json()


@asynccontextmanager
async def open_client(job: Job) -> AsyncGenerator[Httpx]:
    """Open a client of the module that the command line names."""
    httpx = importlib.import_module(sys.argv[1])
    limits = httpx.Limits(
        max_connections=job.concurrency, max_keepalive_connections=job.concurrency
    )
    verify = ssl.create_default_context(cafile=job.cafile) if job.cafile else True
    settings = {"verify": verify, "limits": limits}
    if len(sys.argv) > 2:
        transport = importlib.import_module(sys.argv[2]).AnyioTransport(**settings)
        settings = {"transport": transport}
    async with httpx.AsyncClient(headers=HEADERS, **settings) as client:
        yield Httpx(client, job)


if __name__ == "__main__":
    play(open_client)
