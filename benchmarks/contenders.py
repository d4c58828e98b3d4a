"""Who is measured, each in an environment of its own."""

from __future__ import annotations

import json
import os
import shutil
import sys

from attrs import frozen

from benchmarks.scenes import Point

PYTHONS = "KALEDEN_BENCH_PYTHONS"
"""The environment variable that says which interpreter each environment has, as JSON."""


@frozen
class Contender:
    """A client in one of its ways of use.

    Attributes:
        name: what it is called in tables.
        environment: whose interpreter runs it.
        module: its driver, in `benchmarks.drivers`.
        args: the driver's command line.
        backend: the event loop.
        most_concurrency: what it refuses to go beyond.
        most_ids: what would take it for ever to go beyond.
        enough: how many ids tell its cost, if it is slow, and its cost does not grow with them.
    """

    name: str
    environment: str
    module: str
    args: tuple[str, ...] = ()
    backend: str = "asyncio"
    most_concurrency: int = 10**6
    most_ids: int = 10**7
    enough: int | None = None

    def can(self, point: Point) -> bool:
        """Tell whether it can be asked for this."""
        if point.options.get("native") and self.backend == "trio":
            return False
        return point.n <= self.most_ids and point.concurrency <= self.most_concurrency

    def command(self, pythons: dict[str, str]) -> list[str]:
        """Give the command line of its driver."""
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
    # It takes no more than 128 at once; of more than 100 000 ids nobody has seen the end.
    Contender("canfar", "canfar", "canfar_client", most_concurrency=128, most_ids=100_000),
    Contender(
        "canfar Session",
        "canfar",
        "canfar_client",
        ("blocking",),
        most_concurrency=128,
        enough=2000,
    ),
    Contender("httpx", "httpx", "httpx_client", ("httpx",), enough=2000),
    Contender("httpx + kaleden.http", "kaleden", "httpx_client", ("httpx", "kaleden.http")),
    Contender("httpx2", "httpx2", "httpx_client", ("httpx2",), enough=2000),
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
    """Tell which environments there are, and the interpreter of each."""
    return {"kaleden": sys.executable, **json.loads(os.environ.get(PYTHONS, "{}"))}


def available(pythons: dict[str, str]) -> list[Contender]:
    """List the contenders that can be run here."""
    return [
        contender
        for contender in _ALL
        if contender.environment in pythons and (contender.name != "wrk" or shutil.which("wrk"))
    ]
