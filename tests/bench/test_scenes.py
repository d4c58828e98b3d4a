"""Every scene, small, as kaleden plays it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from attrs import evolve

pytest.importorskip("benchmarks")

from benchmarks import report
from benchmarks.children import Child
from benchmarks.contenders import CONTENDERS
from benchmarks.results import Results
from benchmarks.rounds import Sample
from benchmarks.scenes import SCENES, Point
from benchmarks.servers import Kind, Servers, open_servers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="they are measured on Linux")

PYTHONS = {"kaleden": sys.executable}


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with open_servers() as servers:
        yield servers


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    with Child(CONTENDERS["kaleden asyncio"], PYTHONS, {}) as child:
        yield child


def ask(child: Child, servers: Servers, point: Point, **changes: Any) -> Sample:
    """Play a point with other sizes, on a server that need not be fast."""
    server = evolve(point.server, counts=True, delay=min(point.server.delay, 0.01))
    small = evolve(point, server=server, options=point.options | changes.pop("options", {}))
    url = servers.get(server).url
    return child.ask(evolve(small, **changes).order(url, str(servers.cafile)))


def point_of(scene: str, number: int = 0) -> Point:
    return SCENES[scene].points[number]


def figures_of(scene: str, sample: Sample) -> list[float]:
    """What the report makes of a sample."""
    point = point_of(scene).label
    results = Results({}, [{"scene": scene, "point": point, "contender": "x", **sample}])
    told = (each.figure(results, scene, point, "x") for each in report.columns(scene, point))
    return [figure.median for figure in told if figure is not None]


def test_streaming_counts_each_id(child: Child, servers: Servers) -> None:
    sample = ask(child, servers, point_of("streaming"), n=50, concurrency=4)
    assert 50 == sample["requests"]


def test_after_a_storm_the_slots_are_counted(child: Child, servers: Servers) -> None:
    for number in range(2):
        options = {"rounds": 1, "seconds": 0.02}
        sample = ask(
            child, servers, point_of("storm", number), n=20, concurrency=2, options=options
        )
        assert (20, 0, 0) == (sample["requests"], sample["failed"], sample["lost"])


@pytest.mark.parametrize("scene", ["cancel", "beside"])
def test_latencies_have_a_median_and_a_worst(scene: str, child: Child, servers: Servers) -> None:
    options = {"times": 3, "seconds": 0.01}
    sample = ask(child, servers, point_of(scene), n=100, concurrency=4, options=options)
    assert 0 < sample["seconds"] <= sample["worst"]
    assert [1000 * sample["seconds"], 1000 * sample["worst"]] == figures_of(scene, sample)


def test_memory_is_told_of_what_is_kept_and_of_what_passes(child: Child, servers: Servers) -> None:
    kept = ask(child, servers, point_of("collected"), n=60, concurrency=4)
    passed = ask(child, servers, point_of("streamed"), n=60, concurrency=4)
    whole = ask(child, servers, point_of("streamed", 3), n=60, concurrency=4)
    assert passed["kept"] < kept["kept"] <= kept["peak"]
    assert whole["whole"] > 10**7


def test_ids_that_wait_are_weighed(servers: Servers) -> None:
    point = evolve(point_of("pending"), n=200, concurrency=2)
    with Child(CONTENDERS["kaleden asyncio"], PYTHONS, {}) as child:
        sample = child.ask(point.order(servers.get(Kind(delay=1e6)).url, ""))
    assert sample["kept"] > 0
    assert [sample["kept"] / 200] == figures_of("pending", sample)


@pytest.mark.parametrize(
    ("scene", "contender"),
    [
        ("engine", "engine asyncio"),
        ("waiting", "waiting asyncio"),
        ("turns", "turns asyncio"),
        ("import", "import kaleden"),
    ],
)
def test_what_needs_no_server_is_played_without(scene: str, contender: str) -> None:
    point = evolve(point_of(scene), n=5)
    with Child(CONTENDERS[contender], PYTHONS, {}) as child:
        sample = child.ask(point.order("", ""))
    assert "error" not in sample
    assert len(report.columns(scene, point.label)) >= len(figures_of(scene, sample)) > 0
