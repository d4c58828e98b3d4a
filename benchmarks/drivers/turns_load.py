"""How long kaleden keeps the other tasks of its event loop waiting, with canned replies."""

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
from benchmarks.drivers.child import Figures, Order, run, serve
from kaleden.http import Request, Response

_HEADERS = {"content-type": "application/json"}


class Canned:
    """Answers each request after one iteration of the event loop; the list has all *keys*."""

    def __init__(self, keys: list[str]) -> None:
        self._list = json.dumps([json.loads(payload.body(key)) for key in keys]).encode()

    async def send(self, request: Request) -> Response:
        await cancel_shielded_checkpoint()
        _, _, key = request.target.partition("/")
        return Response(200, _HEADERS, payload.body(key).encode() if key else self._list)


async def _exhaust(stream: Any) -> None:
    async with stream as outcomes:
        async for _ in outcomes:
            pass


_CALLS: dict[str, Callable[[kaleden.AsyncSession, list[str]], Awaitable[object]]] = {
    "fetch": lambda session, _: session.fetch(),
    "info": lambda session, keys: session.info(keys),
    "wait": lambda session, keys: session.wait(keys, "Running"),
    "stream.info": lambda session, keys: _exhaust(session.stream.info(keys)),
    "stream.wait": lambda session, keys: _exhaust(session.stream.wait(keys, "Running")),
}


async def longest_turn(order: Order) -> Figures:
    """Make a call, and measure the CPU time between two turns of another task, at most.

    The garbage collector is off: the time that it takes depends on all objects of a program.
    """
    keys = payload.first_keys(order.n)
    call = _CALLS[order.options["call"]]
    turns: list[float] = []

    async def take_turns() -> None:
        while True:
            turns.append(time.thread_time())
            await checkpoint()

    session = kaleden.AsyncSession(transport=Canned(keys), concurrency=order.concurrency)
    gc.collect()
    gc.disable()
    try:
        async with session, anyio.create_task_group() as group:
            group.start_soon(take_turns)
            await checkpoint()
            await call(session, keys)
            await checkpoint()
            group.cancel_scope.cancel()
    finally:
        gc.enable()
    return {"longest": max(later - earlier for earlier, later in pairwise(turns))}


if __name__ == "__main__":
    serve(lambda order: run(order.backend, lambda: longest_turn(order)))
