"""The scenes that any contender can play: how fast, and with how much memory."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from benchmarks import payload
from benchmarks.drivers import cancelling
from benchmarks.drivers.child import (
    Client,
    Figures,
    Opener,
    Order,
    Scene,
    Stopwatch,
    check,
    run,
    serve,
)
from benchmarks.drivers.measures import Memory


async def throughput(order: Order, open_client: Opener) -> Figures:
    """Ask for n sessions, several times over; connections are made before the clock starts."""
    keys = payload.first_keys(order.n)
    loops = order.options.get("loops", 1)
    async with open_client(order) as client:
        await warm_up(client, order)
        watch = Stopwatch()
        for _ in range(loops):
            results = await client.many(keys)
        figures = watch.stop()
        check(keys, client.keys(results))
    return figures | {"requests": loops * order.n}


async def streaming(order: Order, open_client: Opener) -> Figures:
    """Ask for n sessions and keep none of them."""
    async with open_client(order) as client:
        await warm_up(client, order)
        watch = await drain(client, payload.first_keys(order.n), order.n)
    return watch.read() | {"requests": order.n}


async def memory(order: Order, open_client: Opener) -> Figures:
    """Ask for n sessions whose ids come one by one, and keep all results, or none of them."""
    async with open_client(order) as client:
        await warm_up(client, order)
        size = Memory(traced=order.options["traced"])
        keys = islice(payload.keys(), order.n)
        if order.options["keep"]:
            results = await client.many(list(keys))
            figures = size.read()
            check(payload.first_keys(order.n), client.keys(results))
        else:
            await drain(client, keys, order.n)
            figures = size.read()
    return figures | {"requests": order.n}


async def warm_up(client: Client, order: Order) -> None:
    """Make the connections, and whatever else comes with the first requests."""
    await client.many(payload.first_keys(2 * order.concurrency))


async def drain(client: Client, keys: Iterable[str], count: int) -> Stopwatch:
    """Take all of a stream, and make sure in little memory that each answer came once."""
    digest = 0
    taken = 0
    watch = Stopwatch()
    async for key in client.stream(keys):
        digest ^= hash(key)
        taken += 1
    watch.stop()
    for key in islice(payload.keys(), count):
        digest ^= hash(key)
    check([count, 0], [taken, digest])
    return watch


SCENES: dict[str, Scene] = {
    "throughput": throughput,
    "streaming": streaming,
    "memory": memory,
    "pending": cancelling.pending,
    "storm": cancelling.storm,
    "cancel": cancelling.cancel,
    "beside": cancelling.beside,
}


def play(open_client: Opener) -> None:
    """Carry out orders with a contender's client until the input ends."""
    serve(lambda order: run(order.backend, lambda: SCENES[order.scene](order, open_client)))
