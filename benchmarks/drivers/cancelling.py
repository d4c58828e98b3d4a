"""The scenes with cancellation or concurrent calls."""

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
from benchmarks.drivers.child import Client, Figures, Job, Opener, Stopwatch, check_keys
from benchmarks.drivers.measures import Memory


async def measure_pending(job: Job, open_client: Opener) -> Figures:
    """Request n sessions from a server that never responds; measure the memory of the call."""
    keys = payload.list_keys(job.n)
    async with open_client(job) as client, anyio.create_task_group() as group:
        size = Memory(traced=True)
        group.start_soon(client.many, keys)
        before = -1
        while before != (now := tracemalloc.get_traced_memory()[0]):
            before = now
            await anyio.sleep(0.5)
        figures = size.read()
        group.cancel_scope.cancel()
    return figures | {"requests": job.n}


async def measure_storm(job: Job, open_client: Opener) -> Figures:
    """Cancel requests at random times, in many rounds; then measure the client's throughput."""
    async with open_client(job) as client:
        keys = payload.list_keys(job.n)
        before = await send_burst(client, keys, job.concurrency)
        native = job.options["native"]
        rng = random.Random()  # noqa: S311 - nothing is secret
        for _ in range(job.options["rounds"]):
            delays = [rng.uniform(0, job.options["seconds"]) for _ in range(40)]
            await (_cancel_natively(client, delays) if native else _cancel_by_scope(client, delays))
        # Wait until the abandoned requests have left the server.
        while fetch_counts(job)["waiting"]:  # noqa: ASYNC110 - the server must be polled
            await anyio.sleep(job.options["seconds"])
        after = await send_burst(client, keys, job.concurrency)
    lost = job.concurrency - fetch_counts(job)["most"]
    return after | {"before": before["wall"], "lost": lost}


async def send_burst(client: Client, keys: Sequence[str], workers: int) -> Figures:
    """Request the sessions one by one, and count the failures."""
    waiting = iter(keys)
    failed = 0

    async def work() -> None:
        nonlocal failed
        for key in waiting:
            try:
                await client.one(key)
            except Exception:  # noqa: BLE001 - every failure is counted
                failed += 1

    watch = Stopwatch()
    with anyio.move_on_after(60):
        async with anyio.create_task_group() as group:
            for _ in range(workers):
                group.start_soon(work)
    return watch.stop() | {"requests": len(keys) - failed, "failed": failed + len(list(waiting))}


async def _cancel_by_scope(client: Client, delays: Sequence[float]) -> None:
    """Cancel each request after its delay, with a cancel scope."""

    async def one(key: str, delay: float) -> None:
        with anyio.move_on_after(delay):
            await client.one(key)

    async with anyio.create_task_group() as group:
        for key, delay in zip(payload.list_keys(len(delays)), delays, strict=True):
            group.start_soon(one, key, delay)


async def _cancel_natively(client: Client, delays: Sequence[float]) -> None:
    """Cancel each request after its delay, with asyncio's ``Task.cancel``."""
    loop = asyncio.get_running_loop()
    tasks = [asyncio.ensure_future(client.one(key)) for key in payload.list_keys(len(delays))]
    for task, delay in zip(tasks, delays, strict=True):
        loop.call_later(delay, task.cancel)
    await asyncio.wait(tasks)


async def measure_cancel(job: Job, open_client: Opener) -> Figures:
    """Cancel a running call for many sessions; measure the seconds until it has ended."""
    keys = payload.list_keys(job.n)
    seconds = []
    async with open_client(job) as client:
        for _ in range(job.options["times"]):
            async with anyio.create_task_group() as group:
                group.start_soon(client.many, keys)
                await anyio.sleep(job.options["seconds"])
                began = time.perf_counter()
                group.cancel_scope.cancel()
            seconds.append(time.perf_counter() - began)
    return {"seconds": median(seconds), "worst": max(seconds)}


async def measure_beside(job: Job, open_client: Opener) -> Figures:
    """Request single sessions while the same client runs a call for many."""
    times = job.options["times"]
    every = payload.list_keys(job.n + times)
    keys, others = every[: job.n], every[job.n :]
    seconds = []
    async with open_client(job) as client:
        busy = True

        async def batch() -> None:
            nonlocal busy
            check_keys(keys, client.keys(await client.many(keys)))
            busy = False

        async with anyio.create_task_group() as group:
            group.start_soon(batch)
            await anyio.sleep(job.options["seconds"])
            for key in others:
                began = time.perf_counter()
                await client.one(key)
                seconds.append(time.perf_counter() - began)
                if not busy:
                    break
                await anyio.sleep(job.options["seconds"])
    return {"seconds": median(seconds), "worst": max(seconds)}


def fetch_counts(job: Job) -> dict[str, int]:
    """Return the server's counts since the previous call."""
    url = job.url.removesuffix("/skaha") + "/count"
    with urllib.request.urlopen(url) as response:  # noqa: S310 - our own server
        counts: dict[str, int] = json.load(response)
    return counts
