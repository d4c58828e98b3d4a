"""The time for which kaleden blocks the other tasks of its event loop, with canned responses."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import anyio
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint

import kaleden
from benchmarks import payload
from benchmarks.drivers.child import Figures, Job, run_in_loop, serve_jobs
from kaleden.http import Request, Response

_HEADERS = {"content-type": "application/json"}


class Canned:
    """Respond to each request after one event-loop iteration; the list has all *keys*."""

    def __init__(self, keys: list[str]) -> None:
        self._list = json.dumps([json.loads(payload.make_body(key)) for key in keys]).encode()

    async def send(self, request: Request) -> Response:
        await cancel_shielded_checkpoint()
        _, _, key = request.target.partition("/")
        return Response(200, _HEADERS, payload.make_body(key).encode() if key else self._list)


async def _exhaust_stream(stream: Any) -> None:
    async with stream as outcomes:
        async for _ in outcomes:
            pass


_CALLS: dict[str, Callable[[kaleden.AsyncSession, list[str]], Awaitable[object]]] = {
    "fetch": lambda session, _: session.fetch(),
    "info": lambda session, keys: session.info(keys),
    "wait": lambda session, keys: session.wait(keys, "Running"),
    "stream.info": lambda session, keys: _exhaust_stream(session.stream.info(keys)),
    "stream.wait": lambda session, keys: _exhaust_stream(session.stream.wait(keys, "Running")),
}


async def measure_longest_turn(job: Job) -> Figures:
    """Make a call, and measure the longest CPU time between two iterations of another task.

    The garbage collector is off, because its time depends on all objects of a program.
    """
    keys = payload.list_keys(job.n)
    call = _CALLS[job.options["call"]]
    times: list[float] = []

    async def record_times() -> None:
        while True:
            times.append(time.thread_time())
            await checkpoint()

    session = kaleden.AsyncSession(transport=Canned(keys), concurrency=job.concurrency)
    gc.collect()
    gc.disable()
    try:
        async with session, anyio.create_task_group() as group:
            group.start_soon(record_times)
            await checkpoint()
            await call(session, keys)
            await checkpoint()
            group.cancel_scope.cancel()
    finally:
        gc.enable()
    return {"longest": max(later - earlier for earlier, later in pairwise(times))}


if __name__ == "__main__":
    serve_jobs(lambda job: run_in_loop(job.backend, lambda: measure_longest_turn(job)))
