"""Tests of each scene with kaleden and few ids."""

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


def run_point(child: Child, servers: Servers, point: Point, **changes: Any) -> Sample:
    """Run a point with other sizes, on a server that counts requests and has a short delay."""
    server = evolve(point.server, counts=True, delay=min(point.server.delay, 0.01))
    small = evolve(point, server=server, options=point.options | changes.pop("options", {}))
    url = servers.get(server).url
    return child.run_job(evolve(small, **changes).make_job(url, str(servers.cafile)))


def get_point(scene: str, number: int = 0) -> Point:
    return SCENES[scene].points[number]


def compute_figures(scene: str, sample: Sample) -> list[float]:
    """Return the figures that the report computes from a sample."""
    point = get_point(scene).label
    results = Results({}, [{"scene": scene, "point": point, "contender": "x", **sample}])
    figures = (
        each.figure(results, scene, point, "x") for each in report.list_columns(scene, point)
    )
    return [figure.median for figure in figures if figure is not None]


def test_streaming_counts_each_id(child: Child, servers: Servers) -> None:
    sample = run_point(child, servers, get_point("streaming"), n=50, concurrency=4)
    assert 50 == sample["requests"]


def test_storm_counts_lost_slots(child: Child, servers: Servers) -> None:
    for number in range(2):
        options = {"rounds": 1, "seconds": 0.02}
        sample = run_point(
            child, servers, get_point("storm", number), n=20, concurrency=2, options=options
        )
        assert (20, 0, 0) == (sample["requests"], sample["failed"], sample["lost"])


@pytest.mark.parametrize("scene", ["cancel", "beside"])
def test_latency_scenes_have_median_and_worst(scene: str, child: Child, servers: Servers) -> None:
    options = {"times": 3, "seconds": 0.01}
    sample = run_point(child, servers, get_point(scene), n=100, concurrency=4, options=options)
    assert 0 < sample["seconds"] <= sample["worst"]
    assert [1000 * sample["seconds"], 1000 * sample["worst"]] == compute_figures(scene, sample)


def test_memory_scenes_measure_kept_and_streamed_results(child: Child, servers: Servers) -> None:
    kept = run_point(child, servers, get_point("collected"), n=60, concurrency=4)
    passed = run_point(child, servers, get_point("streamed"), n=60, concurrency=4)
    whole = run_point(child, servers, get_point("streamed", 3), n=60, concurrency=4)
    assert passed["kept"] < kept["kept"] <= kept["peak"]
    assert whole["whole"] > 10**7


def test_pending_scene_measures_memory_of_waiting_ids(servers: Servers) -> None:
    point = evolve(get_point("pending"), n=200, concurrency=2)
    with Child(CONTENDERS["kaleden asyncio"], PYTHONS, {}) as child:
        sample = child.run_job(point.make_job(servers.get(Kind(delay=1e6)).url, ""))
    assert sample["kept"] > 0
    assert [sample["kept"] / 200] == compute_figures("pending", sample)


@pytest.mark.parametrize(
    ("scene", "contender"),
    [
        ("engine", "engine asyncio"),
        ("waiting", "waiting asyncio"),
        ("turns", "turns asyncio"),
        ("import", "import kaleden"),
    ],
)
def test_scene_without_server_runs_without_one(scene: str, contender: str) -> None:
    point = evolve(get_point(scene), n=5)
    with Child(CONTENDERS[contender], PYTHONS, {}) as child:
        sample = child.run_job(point.make_job("", ""))
    assert "error" not in sample
    assert len(report.list_columns(scene, point.label)) >= len(compute_figures(scene, sample)) > 0
