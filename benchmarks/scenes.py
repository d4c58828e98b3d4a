"""The scenes: each has a sequence of points, and the contenders to measure at them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from attrs import field, frozen

from benchmarks.servers import Kind

DELAY = 0.05


@frozen
class Point:
    """One set of conditions of a measurement.

    Attributes:
        label: its name in tables.
        scene: the name of the measurement in the contenders' processes.
        server: the kind of server.
        n: the number of ids.
        concurrency: the maximum number of requests in flight.
        options: further options of the measurement.
    """

    label: str
    scene: str
    server: Kind = field(factory=Kind)
    n: int = 1
    concurrency: int = 32
    options: dict[str, Any] = field(factory=dict)

    def make_job(self, url: str, cafile: str) -> dict[str, Any]:
        """Return the job for a contender's process."""
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
    """The points of one subject.

    Attributes:
        name: its name on the command line.
        title: its title in tables.
        points: the conditions to measure.
        contenders: the names of the contenders to measure.
        quick: the labels of the points of a quick run; empty to omit the scene there.
        fresh: whether each sample needs a new process.
    """

    name: str
    title: str
    points: tuple[Point, ...]
    contenders: tuple[str, ...]
    quick: tuple[str, ...] = ()
    fresh: bool = False

    def select_points(self, *, quick: bool) -> Iterable[Point]:
        """Return the points of a quick or a full run."""
        return [point for point in self.points if not quick or point.label in self.quick]


OURS = ("kaleden asyncio", "kaleden uvloop", "kaleden trio")
OTHERS = ("canfar", "httpx", "httpx + kaleden.http", "httpx2", "aiohttp", "pyreqwest")
_BARE = ("httpx", "httpx2", "aiohttp", "pyreqwest")
LIMITS = ("epoll loop", "wrk")


def _make_concurrency_point(
    concurrency: int, n: int, *, tls: bool = False, delay: float = 0.0
) -> Point:
    server = Kind(tls=tls, delay=delay)
    return Point(f"c={concurrency}", "throughput", server, n, concurrency)


def _make_size_point(n: int, *, tls: bool = False) -> Point:
    # Requests for a few ids take less time than the clock resolves, so repeat them.
    options = {"loops": max(1, 2000 // n)}
    return Point(f"N={n}", "throughput", Kind(tls=tls), n, 32, options)


def _make_collected_point(n: int) -> Point:
    return Point(f"N={n}", "memory", n=n, options={"traced": True, "keep": True})


def _make_streamed_point(n: int, *, traced: bool) -> Point:
    label = f"N={n}, {'objects' if traced else 'process'}"
    return Point(label, "memory", n=n, options={"traced": traced, "keep": False})


def _make_turns_point(call: str) -> Point:
    return Point(call, "turns", n=10_000, concurrency=4, options={"call": call})


def _make_storm_point(label: str, *, native: bool) -> Point:
    options = {"rounds": 15, "seconds": 0.04, "native": native}
    return Point(label, "storm", Kind(delay=0.01), 300, 10, options)


_CONCURRENCIES = (1, 32, 100, 500, 1000)

_ALL = (
    Scene(
        "http",
        "CPU per request and requests per second by concurrency, 10 000 ids, http",
        tuple(_make_concurrency_point(c, 10_000) for c in _CONCURRENCIES),
        (*OURS, "kaleden raw", *OTHERS, *LIMITS),
        quick=("c=32",),
    ),
    Scene(
        "tls",
        "The same over TLS",
        tuple(_make_concurrency_point(c, 10_000, tls=True) for c in _CONCURRENCIES),
        OURS + OTHERS + LIMITS,
        quick=("c=32",),
    ),
    Scene(
        "growth",
        "CPU per id by the number of ids, 32 at once, http",
        tuple(_make_size_point(n) for n in (10, 100, 1000, 10_000, 30_000, 100_000, 1_000_000)),
        (*OURS, "canfar", "epoll loop"),
        quick=("N=10", "N=1000"),
    ),
    Scene(
        "growth-tls",
        "CPU per id by the number of ids, 32 at once, TLS",
        tuple(_make_size_point(n, tls=True) for n in (1000, 10_000, 30_000, 100_000)),
        (*OURS, "canfar", "epoll loop"),
    ),
    Scene(
        "streaming",
        "CPU per id when results are streamed, 32 at once, http",
        tuple(Point(f"N={n}", "streaming", n=n) for n in (10_000, 1_000_000)),
        (*OURS, "epoll loop"),
    ),
    Scene(
        "latency",
        "A server that takes 50 ms: share of the ideal",
        tuple(_make_concurrency_point(c, 40 * c, delay=DELAY) for c in (32, 100, 500, 1000)),
        (*OURS, *OTHERS, "epoll loop"),
        quick=("c=100",),
    ),
    Scene(
        "storm",
        "15 rounds of 40 requests cancelled at random moments, then 300 more, 10 at once, 10 ms",
        (_make_storm_point("native", native=True), _make_storm_point("scope", native=False)),
        OURS + OTHERS,
        quick=("scope",),
    ),
    Scene(
        "cancel",
        "Seconds until a cancelled call has ended, 10 000 ids, 100 at once, 50 ms",
        (Point("c=100", "cancel", Kind(delay=DELAY), 10_000, 100, {"times": 5, "seconds": 0.3}),),
        OURS + OTHERS,
    ),
    Scene(
        "beside",
        "Seconds for one session while the same client asks for 10 000, 32 at once, 10 ms",
        (Point("c=32", "beside", Kind(delay=0.01), 10_000, 32, {"times": 30, "seconds": 0.05}),),
        OURS + OTHERS,
    ),
    Scene(
        "pending",
        "Bytes for each id that waits for its turn",
        (Point("N=30000", "pending", Kind(delay=1e6), 30_000),),
        OURS + OTHERS,
        fresh=True,
    ),
    Scene(
        "collected",
        "Bytes for each result that is kept",
        tuple(_make_collected_point(n) for n in (1000, 10_000)),
        (*OURS, "kaleden raw", *OTHERS),
        quick=("N=1000",),
        fresh=True,
    ),
    Scene(
        "streamed",
        "Bytes in all when no result is kept",
        (
            *(_make_streamed_point(n, traced=True) for n in (1000, 10_000, 100_000)),
            *(_make_streamed_point(n, traced=False) for n in (1000, 1_000_000)),
        ),
        OURS,
        fresh=True,
    ),
    Scene(
        "engine",
        "CPU per id without HTTP: canned responses, 32 at once",
        (Point("N=10000", "throughput", n=10_000),),
        ("engine asyncio", "engine uvloop", "engine trio"),
        quick=("N=10000",),
    ),
    Scene(
        "calls",
        "Wall time for each id of a small call on a warm client",
        tuple(Point(f"N={n}", "throughput", n=n, options={"loops": 2000 // n}) for n in (1, 100)),
        ("kaleden Session", "kaleden asyncio", "kaleden trio", "canfar", "canfar Session"),
        quick=("N=1", "N=100"),
    ),
    Scene(
        "waiting",
        "Requests for each session that is waited for",
        tuple(Point(f"N={n}", "", n=n) for n in (1, 10, 100, 1000)),
        ("waiting asyncio", "waiting trio"),
        quick=("N=100",),
    ),
    Scene(
        "turns",
        "CPU time for which other tasks wait at most, 10 000 sessions, canned responses, 4 at once",
        tuple(map(_make_turns_point, ("fetch", "info", "wait", "stream.info", "stream.wait"))),
        ("turns asyncio", "turns uvloop", "turns trio"),
        quick=("fetch", "wait"),
    ),
    Scene(
        "import",
        "Seconds for an import",
        (Point("cold", ""),),
        tuple(f"import {name}" for name in ("kaleden", "canfar", *_BARE)),
        quick=("cold",),
    ),
)
SCENES = {scene.name: scene for scene in _ALL}
