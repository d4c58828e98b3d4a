"""kaleden without HTTP: a transport that answers at once, so what is left is the engine's part."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from anyio.lowlevel import cancel_shielded_checkpoint

import kaleden
from benchmarks import payload
from benchmarks.drivers.child import Order
from benchmarks.drivers.kaleden_client import Kaleden
from benchmarks.drivers.play import play
from kaleden.http import Request, Response

_HEADERS = {"content-type": "application/json"}


class Canned:
    """Answers each request with the session that it asks for, after one turn of the event loop."""

    async def send(self, request: Request) -> Response:
        await cancel_shielded_checkpoint()
        key = request.target.rpartition("/")[2]
        return Response(200, _HEADERS, payload.body(key).encode())


@asynccontextmanager
async def opened(order: Order) -> AsyncGenerator[Kaleden]:
    """Open a session over canned replies."""
    async with kaleden.AsyncSession(transport=Canned(), concurrency=order.concurrency) as session:
        yield Kaleden(session, order)


if __name__ == "__main__":
    play(opened)
