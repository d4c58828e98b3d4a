"""Whole runs with few ids, of the contenders that need no environment of their own."""

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
from benchmarks.rounds import Plan, Sample, Stage
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


def play(servers: Servers, *points: Point, contenders: tuple[Contender, ...]) -> list[Sample]:
    stage = Stage(servers, PYTHONS, Plan(repeats=2, patience=60, most_ids=50, quick=False))
    scene = Scene("some", "", points, tuple(each.name for each in contenders))
    return list(stage.play(scene, contenders))


def test_contenders_take_turns_and_another_begins_each_round(servers: Servers) -> None:
    point = Point("p", "throughput", Kind(counts=True), n=40, concurrency=4)
    samples = play(servers, point, contenders=(RAW, OURS))
    assert [RAW.name, OURS.name, OURS.name, RAW.name] == [each["contender"] for each in samples]
    for sample in samples:
        assert ("some", "p", 40) == (sample["scene"], sample["point"], sample["requests"])
        assert sample["cpu"] > 0


def test_what_was_asked_for_is_what_the_server_saw(servers: Servers) -> None:
    server = Kind(counts=True)
    order = {"scene": "throughput", "n": 30, "concurrency": 3, "options": {"loops": 5}}
    with Child(OURS, PYTHONS, {}) as child:
        figures = child.ask({**order, "url": servers.get(server).url})
    assert 150 == figures["requests"]
    # And six to make connections, before the clock starts.
    assert {"requests": 156, "connections": 3, "most": 0, "waiting": 0} == count(servers, server)


def count(servers: Servers, kind: Kind) -> dict[str, int]:
    root = servers.get(kind).url.removesuffix("/skaha")
    with urllib.request.urlopen(f"{root}/count") as reply:
        told: dict[str, int] = json.load(reply)
    return told | {"connections": told["connections"] - 1}


def test_a_delaying_server_holds_requests_side_by_side(servers: Servers) -> None:
    server = Kind(delay=1e6)
    order = Point("", "throughput", server, 20, 10).order(servers.get(server).url, "")
    with Child(RAW, PYTHONS, {}) as child, ThreadPoolExecutor(1) as pool:
        pool.submit(child.ask, order)
        try:
            poll_until(lambda: count(servers, server)["waiting"] == 10)
        finally:
            child.close()


def test_the_raw_loop_is_measured_over_tls(servers: Servers) -> None:
    point = Point("p", "throughput", Kind(tls=True, counts=True), n=10, concurrency=2)
    for sample in play(servers, point, contenders=(RAW,)):
        assert 10 == sample["requests"]


def test_a_wrong_answer_is_an_error_and_no_figure(servers: Servers, tmp_path: Path) -> None:
    root = servers.get(Kind(counts=True)).url
    with Child(RAW, PYTHONS, {}) as child:
        figures = child.ask(Point("", "throughput", n=3).order(f"{root}/elsewhere", ""))
    assert figures["error"].startswith("ValueError")


def test_a_driver_that_dies_is_an_error(servers: Servers) -> None:
    gone = Contender("gone", "kaleden", "no_such_driver")
    [sample] = play(servers, Point("p", "throughput"), contenders=(gone,))
    assert "the process" in sample["error"]


def test_every_id_has_the_answer_that_it_should_have(servers: Servers) -> None:
    [key] = payload.first_keys(1)
    root = servers.get(Kind(counts=True)).url
    with urllib.request.urlopen(f"{root}/v1/session/{key}") as reply:
        assert key == json.load(reply)["id"]
