"""The scenes that many contenders can play."""

from __future__ import annotations

from benchmarks import payload
from benchmarks.drivers.child import Figures, Opener, Order, Scene, Stopwatch, check, run, serve


async def throughput(order: Order, open_client: Opener) -> Figures:
    """Ask for n sessions, several times over; connections are made before the clock starts."""
    keys = payload.first_keys(order.n)
    loops = order.options.get("loops", 1)
    async with open_client(order) as client:
        await client.many(payload.first_keys(2 * order.concurrency))
        watch = Stopwatch()
        for _ in range(loops):
            results = await client.many(keys)
        figures = watch.read()
        check(keys, client.keys(results))
    return figures | {"requests": loops * order.n}


async def streaming(order: Order, open_client: Opener) -> Figures:
    """Ask for n sessions and keep none of them; each reply is checked as it comes."""
    awaited = set(payload.first_keys(order.n))
    async with open_client(order) as client:
        await client.many(payload.first_keys(2 * order.concurrency))
        watch = Stopwatch()
        async for key in client.stream(payload.first_keys(order.n)):
            awaited.remove(key)
        figures = watch.read()
        check([], awaited)
    return figures | {"requests": order.n}


SCENES: dict[str, Scene] = {"throughput": throughput, "streaming": streaming}


def play(open_client: Opener) -> None:
    """Carry out orders with a contender's client until the input ends."""
    serve(lambda order: run(order.backend, lambda: SCENES[order.scene](order, open_client)))
