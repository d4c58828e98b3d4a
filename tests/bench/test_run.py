"""Tests of whole runs with few ids, with contenders that need no separate environment."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("benchmarks")

from benchmarks import payload
from benchmarks.children import Child
from benchmarks.contenders import CONTENDERS, Contender
from benchmarks.rounds import Plan, Runner, Sample
from benchmarks.scenes import Point, Scene
from benchmarks.servers import Kind, Servers, open_servers

from support import poll_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="they are measured on Linux")

PYTHONS = {"kaleden": sys.executable}
RAW = CONTENDERS["epoll loop"]
OURS = CONTENDERS["kaleden asyncio"]


@pytest.fixture
def servers() -> Iterator[Servers]:
    with open_servers() as servers:
        yield servers


def run_scene(servers: Servers, *points: Point, contenders: tuple[Contender, ...]) -> list[Sample]:
    runner = Runner(servers, PYTHONS, Plan(repeats=2, patience=60, max_ids=50, quick=False))
    scene = Scene("some", "", points, tuple(each.name for each in contenders))
    return list(runner.run_scene(scene, contenders))


def test_contenders_alternate_and_rotate_each_round(servers: Servers) -> None:
    point = Point("p", "throughput", Kind(counts=True), n=40, concurrency=4)
    samples = run_scene(servers, point, contenders=(RAW, OURS))
    assert [RAW.name, OURS.name, OURS.name, RAW.name] == [each["contender"] for each in samples]
    for sample in samples:
        assert ("some", "p", 40) == (sample["scene"], sample["point"], sample["requests"])
        assert sample["cpu"] > 0


def test_server_receives_the_requests_of_the_job(servers: Servers) -> None:
    server = Kind(counts=True)
    job = {"scene": "throughput", "n": 30, "concurrency": 3, "options": {"loops": 5}}
    with Child(OURS, PYTHONS, {}) as child:
        figures = child.run_job({**job, "url": servers.get(server).url})
    assert 150 == figures["requests"]
    # Six further requests make the connections, before the clock starts.
    assert {"requests": 156, "connections": 3, "most": 0, "waiting": 0} == count(servers, server)


def count(servers: Servers, kind: Kind) -> dict[str, int]:
    url = servers.get(kind).url.removesuffix("/skaha")
    with urllib.request.urlopen(f"{url}/count") as response:
        counts: dict[str, int] = json.load(response)
    return counts | {"connections": counts["connections"] - 1}


def test_delaying_server_holds_concurrent_requests(servers: Servers) -> None:
    server = Kind(delay=1e6)
    job = Point("", "throughput", server, 20, 10).make_job(servers.get(server).url, "")
    with Child(RAW, PYTHONS, {}) as child, ThreadPoolExecutor(1) as pool:
        pool.submit(child.run_job, job)
        try:
            poll_until(lambda: count(servers, server)["waiting"] == 10)
        finally:
            child.close()


def test_raw_client_is_measured_over_tls(servers: Servers) -> None:
    point = Point("p", "throughput", Kind(tls=True, counts=True), n=10, concurrency=2)
    for sample in run_scene(servers, point, contenders=(RAW,)):
        assert 10 == sample["requests"]


def test_invalid_response_is_reported_as_error(servers: Servers, tmp_path: Path) -> None:
    url = servers.get(Kind(counts=True)).url
    with Child(RAW, PYTHONS, {}) as child:
        figures = child.run_job(Point("", "throughput", n=3).make_job(f"{url}/elsewhere", ""))
    assert figures["error"].startswith("ValueError")


def test_driver_that_exits_is_reported_as_error(servers: Servers) -> None:
    gone = Contender("gone", "kaleden", "no_such_driver")
    [sample] = run_scene(servers, Point("p", "throughput"), contenders=(gone,))
    assert "the process" in sample["error"]


def test_server_responds_with_session_of_requested_id(servers: Servers) -> None:
    [key] = payload.list_keys(1)
    url = servers.get(Kind(counts=True)).url
    with urllib.request.urlopen(f"{url}/v1/session/{key}") as response:
        assert key == json.load(response)["id"]
