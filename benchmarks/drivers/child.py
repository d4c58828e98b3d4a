"""A contender's process: it reads orders as lines of JSON, and writes what it measured likewise."""

from __future__ import annotations

import asyncio
import gc
import importlib
import importlib.metadata
import json
import platform
import sys
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple

from benchmarks import payload

Figures = dict[str, Any]


class Order(NamedTuple):
    """What is to be measured.

    Attributes:
        scene: the name of the scene.
        url: the server, as far as ``/skaha``.
        cafile: who vouches for it, if it speaks TLS.
        backend: "asyncio", "uvloop" or "trio".
        concurrency: requests in flight at most.
        n: how many ids.
        options: what else the scene or the contender needs to know.
    """

    scene: str
    url: str = ""
    cafile: str | None = None
    backend: str = "asyncio"
    concurrency: int = 32
    n: int = 1000
    options: dict[str, Any] = {}  # noqa: RUF012 - nobody writes to it

    def session_url(self, key: str) -> str:
        """Give the URL of one session."""
        return f"{self.url}/v1/session/{key}"


HEADERS = {"Authorization": f"Bearer {payload.TOKEN}", "Accept": "application/json"}
"""What a bare client sends, as kaleden does."""


class Client:
    """An open client of a contender."""

    def __init__(self, order: Order) -> None:
        self.concurrency = order.concurrency
        self.url = order.session_url

    async def one(self, key: str) -> Any:
        """Ask for one session."""
        raise NotImplementedError

    async def many(self, keys: Sequence[str]) -> Any:
        """Ask for many, in the way that is natural for this client, and keep the results.

        For a client that has none, a few workers share one list: that costs asyncio the least.
        """
        return await spread(self.one, keys, self.concurrency)

    def keys(self, results: Any) -> Iterable[str]:
        """List the ids inside the results of `many`; raise if one of them is a failure."""
        return [info["id"] for info in results]

    def stream(self, keys: Iterable[str]) -> AsyncGenerator[str]:
        """Ask for many and keep none; yield the ids inside the replies."""
        raise NotImplementedError


Opener = Callable[[Order], AbstractAsyncContextManager[Client]]
Scene = Callable[[Order, Opener], Coroutine[Any, Any, Figures]]


class Stopwatch:
    """Seconds of wall time and of this process's CPU time, all its threads included."""

    def __init__(self) -> None:
        gc.collect()
        self._began = self._ended = (0.0, 0.0)
        self._began = (time.perf_counter(), time.process_time())

    def stop(self) -> Figures:
        """Tell what has passed since this was made."""
        self._ended = (time.perf_counter(), time.process_time())
        return self.read()

    def read(self) -> Figures:
        """Tell what had passed when this was stopped."""
        wall, cpu = (after - before for before, after in zip(self._began, self._ended, strict=True))
        return {"wall": wall, "cpu": cpu}


def check(asked: Sequence[object], told: Iterable[object]) -> None:
    """Make sure that there is one answer for each question, in order."""
    if list(asked) != list(told):
        raise ValueError("the replies are not those to what was asked")


async def spread(
    one: Callable[[str], Coroutine[Any, Any, Any]], keys: Sequence[str], workers: int
) -> list[Any]:
    """Ask for each id by a few workers that share one list; give the replies in its order."""
    results: list[Any] = [None] * len(keys)
    numbers = iter(range(len(keys)))

    async def work() -> None:
        for number in numbers:
            results[number] = await one(keys[number])

    async with asyncio.TaskGroup() as group:
        for _ in range(min(workers, len(keys))):
            group.create_task(work())
    return results


def run(backend: str, main: Callable[[], Coroutine[Any, Any, Figures]]) -> Figures:
    """Run *main* in an event loop of this kind."""
    if backend == "trio":
        figures: Figures = importlib.import_module("trio").run(main)
        return figures

    factory = None
    if backend == "uvloop":
        factory = importlib.import_module("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main())


def about() -> Figures:
    """Tell what this process runs on."""
    installed = importlib.metadata.distributions()
    versions = {each.name: each.version for each in installed}
    return {"python": platform.python_version(), "versions": versions}


def serve(answer: Callable[[Order], Figures]) -> None:
    """Carry out orders until the input ends; what libraries print goes to the error output."""
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        order = Order(**json.loads(line))
        try:
            figures = about() if order.scene == "about" else answer(order)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what came of the order
            figures = {"error": f"{type(error).__name__}: {error}"[:300]}
        print(json.dumps(figures), file=answers, flush=True)
