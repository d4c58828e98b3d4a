"""The process of a contender: it reads jobs and writes figures, as lines of JSON."""

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


class Job(NamedTuple):
    """One measurement to make.

    Attributes:
        scene: the name of the scene.
        url: the URL of the server, up to and including ``/skaha``.
        cafile: the file with the server's certificate authority, if it uses TLS.
        backend: "asyncio", "uvloop" or "trio".
        concurrency: the maximum number of requests in flight.
        n: the number of ids.
        options: further options of the scene or the contender.
    """

    scene: str
    url: str = ""
    cafile: str | None = None
    backend: str = "asyncio"
    concurrency: int = 32
    n: int = 1000
    options: dict[str, Any] = {}  # noqa: RUF012 - it is never modified

    def session_url(self, key: str) -> str:
        """Return the URL of one session."""
        return f"{self.url}/v1/session/{key}"


HEADERS = {"Authorization": f"Bearer {payload.TOKEN}", "Accept": "application/json"}
"""The headers that an HTTP client sends. They are those of kaleden."""


class Client:
    """An open client of a contender."""

    def __init__(self, job: Job) -> None:
        self.concurrency = job.concurrency
        self.url = job.session_url

    async def one(self, key: str) -> Any:
        """Request one session."""
        raise NotImplementedError

    async def many(self, keys: Sequence[str]) -> Any:
        """Request many sessions, with the client's own method for it, and keep the results.

        For a client without such a method, a few workers share one list, which is the cheapest way
        on asyncio.
        """
        return await fetch_concurrently(self.one, keys, self.concurrency)

    def keys(self, results: Any) -> Iterable[str]:
        """Return the ids in the results of `many`; raise if one of them is a failure."""
        return [info["id"] for info in results]

    def stream(self, keys: Iterable[str]) -> AsyncGenerator[str]:
        """Request many sessions without keeping them; yield the ids in the responses."""
        raise NotImplementedError


Opener = Callable[[Job], AbstractAsyncContextManager[Client]]
Scene = Callable[[Job, Opener], Coroutine[Any, Any, Figures]]


class Stopwatch:
    """A stopwatch for wall time, and for the CPU time of all threads of this process."""

    def __init__(self) -> None:
        gc.collect()
        self._began = self._ended = (0.0, 0.0)
        self._began = (time.perf_counter(), time.process_time())

    def stop(self) -> Figures:
        """Stop, and return the seconds since this object was made."""
        self._ended = (time.perf_counter(), time.process_time())
        return self.read()

    def read(self) -> Figures:
        """Return the seconds until `stop` was called."""
        wall, cpu = (after - before for before, after in zip(self._began, self._ended, strict=True))
        return {"wall": wall, "cpu": cpu}


def check_keys(requested: Sequence[object], received: Iterable[object]) -> None:
    """Check that the received ids are the requested ids, in order.

    Raises:
        ValueError: they differ.
    """
    if list(requested) != list(received):
        raise ValueError("the received ids are not the requested ids")


async def fetch_concurrently(
    one: Callable[[str], Coroutine[Any, Any, Any]], keys: Sequence[str], workers: int
) -> list[Any]:
    """Request each id, with a few workers that share one list; return the results in its order."""
    results: list[Any] = [None] * len(keys)
    numbers = iter(range(len(keys)))

    async def work() -> None:
        for number in numbers:
            results[number] = await one(keys[number])

    async with asyncio.TaskGroup() as group:
        for _ in range(min(workers, len(keys))):
            group.create_task(work())
    return results


def run_in_loop(backend: str, main: Callable[[], Coroutine[Any, Any, Figures]]) -> Figures:
    """Run *main* in an event loop of this backend."""
    if backend == "trio":
        figures: Figures = importlib.import_module("trio").run(main)
        return figures

    factory = None
    if backend == "uvloop":
        factory = importlib.import_module("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main())


def describe_process() -> Figures:
    """Return the versions of Python and of the installed packages."""
    installed = importlib.metadata.distributions()
    versions = {each.name: each.version for each in installed}
    return {"python": platform.python_version(), "versions": versions}


def serve_jobs(run_job: Callable[[Job], Figures]) -> None:
    """Run jobs until the input ends. Output that libraries print goes to standard error."""
    output, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        job = Job(**json.loads(line))
        try:
            figures = describe_process() if job.scene == "about" else run_job(job)
        except Exception as error:  # noqa: BLE001 - it is the result of the job
            figures = {"error": f"{type(error).__name__}: {error}"[:300]}
        print(json.dumps(figures), file=output, flush=True)
