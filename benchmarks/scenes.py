"""What is measured: each scene is a row of points, and who is asked at each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from attrs import field, frozen

from benchmarks.servers import Kind

DELAY = 0.05


@frozen
class Point:
    """One set of circumstances.

    Attributes:
        label: what it is called in tables.
        scene: what the contenders' processes play.
        server: the server that they are given.
        n: how many ids.
        concurrency: how many requests at once.
        options: what else the play needs to know.
    """

    label: str
    scene: str
    server: Kind = field(factory=Kind)
    n: int = 1
    concurrency: int = 32
    options: dict[str, Any] = field(factory=dict)

    def order(self, url: str, cafile: str) -> dict[str, Any]:
        """Give the order to the contenders' processes."""
        return {
            "scene": self.scene,
            "url": url,
            "cafile": cafile if self.server.tls else None,
            "n": self.n,
            "concurrency": self.concurrency,
            "options": self.options,
        }


@frozen
class Scene:
    """Points that belong to one question.

    Attributes:
        name: what it is chosen by.
        title: what it tells.
        points: the circumstances.
        contenders: the names of those who are asked.
        quick: which points are enough for a look, by label; all if it is empty.
        fresh: whether every sample needs a process of its own.
    """

    name: str
    title: str
    points: tuple[Point, ...]
    contenders: tuple[str, ...]
    quick: tuple[str, ...] = ()
    fresh: bool = False

    def shown(self, *, quick: bool) -> Iterable[Point]:
        """List the points of a quick or a whole run."""
        return [p for p in self.points if not quick or not self.quick or p.label in self.quick]


OURS = ("kaleden asyncio", "kaleden uvloop", "kaleden trio")
OTHERS = ("canfar", "httpx", "httpx2", "aiohttp", "pyreqwest")
LIMITS = ("epoll loop", "wrk")


def _at(concurrency: int, n: int, *, tls: bool = False, delay: float = 0.0) -> Point:
    server = Kind(tls=tls, delay=delay)
    return Point(f"c={concurrency}", "throughput", server, n, concurrency)


def _of(n: int, *, tls: bool = False) -> Point:
    # A few ids alone take less time than the clock can tell.
    options = {"loops": max(1, 2000 // n)}
    return Point(f"N={n}", "throughput", Kind(tls=tls), n, 32, options)


_CONCURRENCIES = (1, 32, 100, 500, 1000)

_ALL = (
    Scene(
        "http",
        "CPU per request and requests per second by concurrency, 10 000 ids, http",
        tuple(_at(c, 10_000) for c in _CONCURRENCIES),
        OURS + OTHERS + LIMITS,
        quick=("c=32",),
    ),
    Scene(
        "tls",
        "The same over TLS",
        tuple(_at(c, 10_000, tls=True) for c in _CONCURRENCIES),
        OURS + OTHERS + LIMITS,
        quick=("c=32",),
    ),
    Scene(
        "growth",
        "CPU per id by the number of ids, 32 at once, http",
        tuple(_of(n) for n in (10, 100, 1000, 10_000, 30_000, 100_000, 1_000_000)),
        (*OURS, "canfar", "epoll loop"),
        quick=("N=10", "N=1000"),
    ),
    Scene(
        "growth-tls",
        "CPU per id by the number of ids, 32 at once, TLS",
        tuple(_of(n, tls=True) for n in (1000, 10_000, 30_000, 100_000)),
        (*OURS, "canfar", "epoll loop"),
        quick=("N=1000",),
    ),
    Scene(
        "latency",
        "A server that takes 50 ms: share of the ideal",
        tuple(_at(c, 40 * c, delay=DELAY) for c in (32, 100, 500, 1000)),
        (*OURS, *OTHERS, "epoll loop"),
        quick=("c=100",),
    ),
)
SCENES = {scene.name: scene for scene in _ALL}
