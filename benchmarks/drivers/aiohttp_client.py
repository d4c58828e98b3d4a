"""aiohttp, bare, with as many connections as workers."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from benchmarks.drivers.child import HEADERS, Client, Order
from benchmarks.drivers.play import play


class Aiohttp(Client):
    """An open `ClientSession`."""

    def __init__(self, session: Any, order: Order) -> None:
        self.session = session
        super().__init__(order)

    async def one(self, key: str) -> Any:
        async with self.session.get(self.url(key), raise_for_status=True) as reply:
            return await reply.json()


@asynccontextmanager
async def opened(order: Order) -> AsyncGenerator[Aiohttp]:
    """Open a session whose connector is as large as the number of workers."""
    context = ssl.create_default_context(cafile=order.cafile) if order.cafile else True
    connector = aiohttp.TCPConnector(limit=order.concurrency, ssl=context)
    async with aiohttp.ClientSession(connector=connector, headers=HEADERS) as session:
        yield Aiohttp(session, order)


if __name__ == "__main__":
    play(opened)
