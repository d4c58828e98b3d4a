"""pyreqwest, bare, with as many connections as workers."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pyreqwest.client import ClientBuilder

from benchmarks.drivers.child import HEADERS, Client, Order
from benchmarks.drivers.play import play


class Pyreqwest(Client):
    """An open `Client`."""

    def __init__(self, client: Any, order: Order) -> None:
        self.client = client
        super().__init__(order)

    async def one(self, key: str) -> Any:
        reply = await self.client.get(self.url(key)).build().send()
        return await reply.json()


def certificate(cafile: str) -> bytes:
    """Read who vouches for the server."""
    return Path(cafile).read_bytes()


@asynccontextmanager
async def opened(order: Order) -> AsyncGenerator[Pyreqwest]:
    """Open a client that raises for what is no success."""
    builder = ClientBuilder().default_headers(HEADERS).error_for_status(True)
    builder = builder.max_connections(order.concurrency).pool_max_idle_per_host(order.concurrency)
    if order.cafile is not None:
        builder = builder.add_root_certificate_pem(certificate(order.cafile))
    async with builder.build() as client:
        yield Pyreqwest(client, order)


if __name__ == "__main__":
    play(opened)
