"""httpx, or httpx2, which has the same interface: bare, with as many connections as workers.

The command line names the module, and after it the one that has another transport for it, if any.
"""

from __future__ import annotations

import importlib
import ssl
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.drivers.child import HEADERS, Client, Order
from benchmarks.drivers.play import play


class Httpx(Client):
    """An open `AsyncClient`."""

    def __init__(self, client: Any, order: Order) -> None:
        self.client = client
        super().__init__(order)

    async def one(self, key: str) -> Any:
        reply = await self.client.get(self.url(key))
        reply.raise_for_status()
        return reply.json()


@asynccontextmanager
async def opened(order: Order) -> AsyncGenerator[Httpx]:
    """Open a client of whichever of the two this environment was told to be."""
    httpx = importlib.import_module(sys.argv[1])
    limits = httpx.Limits(
        max_connections=order.concurrency, max_keepalive_connections=order.concurrency
    )
    verify = ssl.create_default_context(cafile=order.cafile) if order.cafile else True
    settings = {"verify": verify, "limits": limits}
    if len(sys.argv) > 2:
        transport = importlib.import_module(sys.argv[2]).AnyioTransport(**settings)
        settings = {"transport": transport}
    async with httpx.AsyncClient(headers=HEADERS, **settings) as client:
        yield Httpx(client, order)


if __name__ == "__main__":
    play(opened)
