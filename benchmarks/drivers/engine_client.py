"""kaleden without HTTP: with a transport that responds at once, only the engine is measured."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from anyio.lowlevel import cancel_shielded_checkpoint

import kaleden
from benchmarks import payload
from benchmarks.drivers.child import Job
from benchmarks.drivers.kaleden_client import Kaleden
from benchmarks.drivers.play import play
from kaleden.http import Request, Response

_HEADERS = {"content-type": "application/json"}


class Canned:
    """Respond to each request with its session, after one event-loop iteration."""

    async def send(self, request: Request) -> Response:
        await cancel_shielded_checkpoint()
        key = request.target.rpartition("/")[2]
        return Response(200, _HEADERS, payload.make_body(key).encode())


@asynccontextmanager
async def open_client(job: Job) -> AsyncGenerator[Kaleden]:
    """Open a session with canned responses."""
    async with kaleden.AsyncSession(transport=Canned(), concurrency=job.concurrency) as session:
        yield Kaleden(session, job)


if __name__ == "__main__":
    play(open_client)
