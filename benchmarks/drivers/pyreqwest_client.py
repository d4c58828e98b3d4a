"""pyreqwest, used directly, with as many connections as workers."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pyreqwest.client import ClientBuilder

from benchmarks.drivers.child import HEADERS, Client, Job
from benchmarks.drivers.play import play


class Pyreqwest(Client):
    """An open `Client`."""

    def __init__(self, client: Any, job: Job) -> None:
        self.client = client
        super().__init__(job)

    async def one(self, key: str) -> Any:
        response = await self.client.get(self.url(key)).build().send()
        return await response.json()


def read_certificate(cafile: str) -> bytes:
    """Read the certificate of the server's certificate authority."""
    return Path(cafile).read_bytes()


@asynccontextmanager
async def open_client(job: Job) -> AsyncGenerator[Pyreqwest]:
    """Open a client that raises an exception for each response that is not a success."""
    builder = ClientBuilder().default_headers(HEADERS).error_for_status(True)
    builder = builder.max_connections(job.concurrency).pool_max_idle_per_host(job.concurrency)
    if job.cafile is not None:
        builder = builder.add_root_certificate_pem(read_certificate(job.cafile))
    async with builder.build() as client:
        yield Pyreqwest(client, job)


if __name__ == "__main__":
    play(open_client)
