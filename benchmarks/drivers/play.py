"""The scenes for any contender: throughput, streaming and memory."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from benchmarks import payload
from benchmarks.drivers import cancelling
from benchmarks.drivers.child import (
    Client,
    Figures,
    Job,
    Opener,
    Scene,
    Stopwatch,
    check_keys,
    run_in_loop,
    serve_jobs,
)
from benchmarks.drivers.measures import Memory


async def measure_throughput(job: Job, open_client: Opener) -> Figures:
    """Request n sessions, several times. Connections are made before the clock starts."""
    keys = payload.list_keys(job.n)
    loops = job.options.get("loops", 1)
    async with open_client(job) as client:
        await warm_up(client, job)
        watch = Stopwatch()
        for _ in range(loops):
            results = await client.many(keys)
        figures = watch.stop()
        check_keys(keys, client.keys(results))
    return figures | {"requests": loops * job.n}


async def measure_streaming(job: Job, open_client: Opener) -> Figures:
    """Request n sessions without keeping the results."""
    async with open_client(job) as client:
        await warm_up(client, job)
        watch = await drain(client, payload.list_keys(job.n), job.n)
    return watch.read() | {"requests": job.n}


async def measure_memory(job: Job, open_client: Opener) -> Figures:
    """Request n sessions with ids from an iterator; keep all results or none."""
    async with open_client(job) as client:
        await warm_up(client, job)
        size = Memory(traced=job.options["traced"])
        keys = islice(payload.generate_keys(), job.n)
        if job.options["keep"]:
            results = await client.many(list(keys))
            figures = size.read()
            check_keys(payload.list_keys(job.n), client.keys(results))
        else:
            await drain(client, keys, job.n)
            figures = size.read()
    return figures | {"requests": job.n}


async def warm_up(client: Client, job: Job) -> None:
    """Make the connections, and all other objects that are made on the first requests."""
    await client.many(payload.list_keys(2 * job.concurrency))


async def drain(client: Client, keys: Iterable[str], count: int) -> Stopwatch:
    """Receive a whole stream, and check with little memory that each id came once."""
    digest = 0
    taken = 0
    watch = Stopwatch()
    async for key in client.stream(keys):
        digest ^= hash(key)
        taken += 1
    watch.stop()
    for key in islice(payload.generate_keys(), count):
        digest ^= hash(key)
    check_keys([count, 0], [taken, digest])
    return watch


SCENES: dict[str, Scene] = {
    "throughput": measure_throughput,
    "streaming": measure_streaming,
    "memory": measure_memory,
    "pending": cancelling.measure_pending,
    "storm": cancelling.measure_storm,
    "cancel": cancelling.measure_cancel,
    "beside": cancelling.measure_beside,
}


def play(open_client: Opener) -> None:
    """Run jobs with a contender's client until the input ends."""
    serve_jobs(lambda job: run_in_loop(job.backend, lambda: SCENES[job.scene](job, open_client)))
