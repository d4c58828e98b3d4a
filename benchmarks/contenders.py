"""The contenders: the clients to measure, each in its own environment."""

from __future__ import annotations

import json
import os
import shutil
import sys

from attrs import frozen

from benchmarks.scenes import Point

PYTHONS = "KALEDEN_BENCH_PYTHONS"
"""The environment variable with the interpreter of each environment, as a JSON object."""


@frozen
class Contender:
    """A client, and one way to use it.

    Attributes:
        name: its name in tables.
        environment: the environment that provides its interpreter.
        module: its driver, a module in `benchmarks.drivers`.
        args: the command line of the driver.
        backend: the event loop.
        max_concurrency: the largest concurrency that it accepts.
        max_ids: the largest number of ids that it finishes in an acceptable time.
        sufficient_ids: the number of ids to measure a slow client with, if its cost per id does not
            depend on the number; None to use the number of the point.
    """

    name: str
    environment: str
    module: str
    args: tuple[str, ...] = ()
    backend: str = "asyncio"
    max_concurrency: int = 10**6
    max_ids: int = 10**7
    sufficient_ids: int | None = None

    def supports(self, point: Point) -> bool:
        """Return whether the contender can run this point."""
        if point.options.get("native") and self.backend == "trio":
            return False
        return point.n <= self.max_ids and point.concurrency <= self.max_concurrency

    def build_command(self, pythons: dict[str, str]) -> list[str]:
        """Return the command line of the driver."""
        return [pythons[self.environment], "-m", f"benchmarks.drivers.{self.module}", *self.args]


_ALL = (
    Contender("kaleden asyncio", "kaleden", "kaleden_client"),
    Contender("kaleden uvloop", "kaleden", "kaleden_client", backend="uvloop"),
    Contender("kaleden trio", "kaleden", "kaleden_client", backend="trio"),
    Contender("kaleden raw", "kaleden", "kaleden_client", ("raw",)),
    Contender("kaleden Session", "kaleden", "facade_client"),
    Contender("engine asyncio", "kaleden", "engine_client"),
    Contender("engine uvloop", "kaleden", "engine_client", backend="uvloop"),
    Contender("engine trio", "kaleden", "engine_client", backend="trio"),
    Contender("waiting asyncio", "kaleden", "waiting_load"),
    Contender("waiting trio", "kaleden", "waiting_load", backend="trio"),
    Contender("turns asyncio", "kaleden", "turns_load"),
    Contender("turns uvloop", "kaleden", "turns_load", backend="uvloop"),
    Contender("turns trio", "kaleden", "turns_load", backend="trio"),
    # canfar accepts a concurrency of at most 128. A run with more than 100 000 ids has never ended.
    Contender("canfar", "canfar", "canfar_client", max_concurrency=128, max_ids=100_000),
    Contender(
        "canfar Session",
        "canfar",
        "canfar_client",
        ("blocking",),
        max_concurrency=128,
        sufficient_ids=2000,
    ),
    Contender("httpx", "httpx", "httpx_client", ("httpx",), sufficient_ids=2000),
    Contender("httpx + kaleden.http", "kaleden", "httpx_client", ("httpx", "kaleden.http")),
    Contender("httpx2", "httpx2", "httpx_client", ("httpx2",), sufficient_ids=2000),
    Contender("aiohttp", "aiohttp", "aiohttp_client"),
    Contender("pyreqwest", "pyreqwest", "pyreqwest_client"),
    Contender("epoll loop", "kaleden", "raw_client"),
    Contender("wrk", "kaleden", "wrk_load"),
    Contender("import kaleden", "kaleden", "import_load", ("kaleden",)),
    Contender("import canfar", "canfar", "import_load", ("canfar.sessions",)),
    Contender("import httpx", "httpx", "import_load", ("httpx",)),
    Contender("import httpx2", "httpx2", "import_load", ("httpx2",)),
    Contender("import aiohttp", "aiohttp", "import_load", ("aiohttp",)),
    Contender("import pyreqwest", "pyreqwest", "import_load", ("pyreqwest.client",)),
)
CONTENDERS = {contender.name: contender for contender in _ALL}


def find_pythons() -> dict[str, str]:
    """Return the interpreter of each environment."""
    return {"kaleden": sys.executable, **json.loads(os.environ.get(PYTHONS, "{}"))}


def list_available(pythons: dict[str, str]) -> list[Contender]:
    """Return the contenders that can run on this machine."""
    return [
        contender
        for contender in _ALL
        if contender.environment in pythons and (contender.name != "wrk" or shutil.which("wrk"))
    ]
