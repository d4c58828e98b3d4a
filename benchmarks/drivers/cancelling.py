"""The scenes in which several things happen at once."""

from __future__ import annotations

import asyncio
import json
import random
import time
import tracemalloc
import urllib.request
from collections.abc import Sequence
from statistics import median

import anyio

from benchmarks import payload
from benchmarks.drivers.child import Client, Figures, Opener, Order, Stopwatch, check
from benchmarks.drivers.measures import Memory


async def pending(order: Order, open_client: Opener) -> Figures:
    """Ask a server that never answers for n sessions; tell what each that waits weighs."""
    keys = payload.first_keys(order.n)
    async with open_client(order) as client, anyio.create_task_group() as group:
        size = Memory(traced=True)
        group.start_soon(client.many, keys)
        before = -1
        while before != (now := tracemalloc.get_traced_memory()[0]):
            before = now
            await anyio.sleep(0.5)
        figures = size.read()
        group.cancel_scope.cancel()
    return figures | {"requests": order.n}


async def storm(order: Order, open_client: Opener) -> Figures:
    """Cancel requests at random moments, round after round; then see what the client still can."""
    async with open_client(order) as client:
        keys = payload.first_keys(order.n)
        before = await burst(client, keys, order.concurrency)
        native = order.options["native"]
        moments = random.Random()  # noqa: S311 - nothing is secret
        for _ in range(order.options["rounds"]):
            delays = [moments.uniform(0, order.options["seconds"]) for _ in range(40)]
            await (_native(client, delays) if native else _scoped(client, delays))
        # Until what was given up has left the server.
        while count(order)["waiting"]:  # noqa: ASYNC110 - the server tells only who asks
            await anyio.sleep(order.options["seconds"])
        after = await burst(client, keys, order.concurrency)
    lost = order.concurrency - count(order)["most"]
    return after | {"before": before["wall"], "lost": lost}


async def burst(client: Client, keys: Sequence[str], workers: int) -> Figures:
    """Ask for each session by itself, and count the failures."""
    waiting = iter(keys)
    failed = 0

    async def work() -> None:
        nonlocal failed
        for key in waiting:
            try:
                await client.one(key)
            except Exception:  # noqa: BLE001 - whatever it is, it is counted
                failed += 1

    watch = Stopwatch()
    with anyio.move_on_after(60):
        async with anyio.create_task_group() as group:
            for _ in range(workers):
                group.start_soon(work)
    return watch.stop() | {"requests": len(keys) - failed, "failed": failed + len(list(waiting))}


async def _scoped(client: Client, delays: Sequence[float]) -> None:
    """Let scopes cancel requests, each at its moment."""

    async def one(key: str, delay: float) -> None:
        with anyio.move_on_after(delay):
            await client.one(key)

    async with anyio.create_task_group() as group:
        for key, delay in zip(payload.first_keys(len(delays)), delays, strict=True):
            group.start_soon(one, key, delay)


async def _native(client: Client, delays: Sequence[float]) -> None:
    """Cancel tasks in asyncio's own way, each at its moment."""
    loop = asyncio.get_running_loop()
    tasks = [asyncio.ensure_future(client.one(key)) for key in payload.first_keys(len(delays))]
    for task, delay in zip(tasks, delays, strict=True):
        loop.call_later(delay, task.cancel)
    await asyncio.wait(tasks)


async def cancel(order: Order, open_client: Opener) -> Figures:
    """Cancel a call for many sessions in its midst; tell the seconds until it has ended."""
    keys = payload.first_keys(order.n)
    seconds = []
    async with open_client(order) as client:
        for _ in range(order.options["times"]):
            async with anyio.create_task_group() as group:
                group.start_soon(client.many, keys)
                await anyio.sleep(order.options["seconds"])
                began = time.perf_counter()
                group.cancel_scope.cancel()
            seconds.append(time.perf_counter() - began)
    return {"seconds": median(seconds), "worst": max(seconds)}


async def beside(order: Order, open_client: Opener) -> Figures:
    """Ask for single sessions while the same client is busy with many."""
    times = order.options["times"]
    every = payload.first_keys(order.n + times)
    keys, others = every[: order.n], every[order.n :]
    seconds = []
    async with open_client(order) as client:
        busy = True

        async def batch() -> None:
            nonlocal busy
            check(keys, client.keys(await client.many(keys)))
            busy = False

        async with anyio.create_task_group() as group:
            group.start_soon(batch)
            await anyio.sleep(order.options["seconds"])
            for key in others:
                began = time.perf_counter()
                await client.one(key)
                seconds.append(time.perf_counter() - began)
                if not busy:
                    break
                await anyio.sleep(order.options["seconds"])
    return {"seconds": median(seconds), "worst": max(seconds)}


def count(order: Order) -> dict[str, int]:
    """Ask the server what it has seen since this was last asked."""
    url = order.url.removesuffix("/skaha") + "/count"
    with urllib.request.urlopen(url) as reply:  # noqa: S310 - our own server
        told: dict[str, int] = json.load(reply)
    return told
