"""Tests of the parts of the benchmark harness."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

# The installed package is tested without the benchmarks.
pytest.importorskip("benchmarks")

from benchmarks import payload, report
from benchmarks.contenders import CONTENDERS, Contender
from benchmarks.drivers.child import check_keys
from benchmarks.drivers.raw_client import parse_body
from benchmarks.results import (
    Figure,
    Results,
    compute_cpu_per_request,
    compute_rate,
    compute_server_share,
    draw_table,
    read,
)
from benchmarks.rounds import Plan, Sample
from benchmarks.scenes import SCENES, Point

RESPONSE = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 2\r\n\r\n{}"


def test_session_object_has_906_bytes_and_contains_its_id() -> None:
    [key] = payload.list_keys(1)
    assert 906 == len(payload.make_body(key).encode())
    assert key == json.loads(payload.make_body(key))["id"]


def test_ids_are_distinct_and_have_one_length() -> None:
    keys = list(itertools.islice(payload.generate_keys(), 100_000))
    assert 100_000 == len(set(keys))
    assert {payload.ID_LENGTH} == {len(key) for key in keys}


def test_received_ids_must_match_requested_ids_in_order() -> None:
    check_keys(["a", "b"], ["a", "b"])
    for received in (["b", "a"], ["a"], ["a", "b", "b"], []):
        with pytest.raises(ValueError, match="not the requested ids"):
            check_keys(["a", "b"], received)


@given(st.binary(max_size=30))
def test_strict_parser_returns_body_of_complete_response(body: bytes) -> None:
    response = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    assert body == parse_body(response)
    for cut in range(len(response)):
        assert parse_body(response[:cut]) is None


@pytest.mark.parametrize(
    "response",
    [
        RESPONSE + b"x",
        RESPONSE.replace(b"200", b"404"),
        RESPONSE.replace(b"Server: x", b"Transfer-Encoding: chunked"),
        RESPONSE.replace(b"Server: x", b"Content-Length: 2"),
        RESPONSE.replace(b"Server: x", b" folded"),
        RESPONSE.replace(b"Content-Length: 2", b"Connection: close"),
        RESPONSE.replace(b"Content-Length: 2", b"Content-Length: +2"),
        RESPONSE.replace(b"\r\nContent", b"\nContent"),
    ],
)
def test_strict_parser_rejects_other_responses(response: bytes) -> None:
    with pytest.raises(ValueError, match="response"):
        parse_body(response)


def test_figure_has_median_and_spread() -> None:
    assert 3 == Figure((1, 9, 3)).median
    assert 0 == Figure((5,)).spread
    assert 0.5 == Figure((6, 9, 10, 14, 100, 10, 10)).spread


def test_figures_are_computed_from_samples() -> None:
    sample = {"wall": 2.0, "cpu": 1.0, "requests": 1000, "server_cpu": 0.5}
    assert 1000 == compute_cpu_per_request(sample)
    assert 500 == compute_rate(sample)
    assert 25 == compute_server_share(sample)


def test_wall_time_figure_uses_quietest_third_of_samples() -> None:
    base = {"scene": "http", "point": "c=32", "contender": "wrk", "requests": 100}
    samples = [{**base, "wall": 10.0 - n, "waited": n / 10} for n in (5, 0, 3, 2)]
    results = Results({}, samples)
    quiet = results.figure("http", "c=32", "wrk", compute_rate, by_clock=True)
    assert Figure((10.0, 12.5)) == quiet
    every = results.figure("http", "c=32", "wrk", compute_rate)
    assert every is not None
    assert 4 == len(every.values)


def test_sample_without_values_has_no_figure() -> None:
    assert compute_server_share({"wall": 2.0}) is None
    assert compute_cpu_per_request({}) is None
    assert compute_rate({}) is None


def make_results() -> Results:
    base = {"scene": "http", "point": "c=32", "wall": 1.0, "requests": 1000}
    samples: list[Sample] = [
        {**base, "contender": "canfar", "cpu": 1.0},
        {**base, "contender": "kaleden trio", "cpu": 0.05},
        {**base, "contender": "kaleden trio", "cpu": 0.15},
        {"scene": "http", "point": "c=32", "contender": "httpx", "error": "broken: pipe"},
    ]
    return Results({"cpu": "some"}, samples)


def test_written_results_can_be_read(tmp_path: Path) -> None:
    make_results().write(tmp_path / "results.json")
    assert make_results() == read(tmp_path / "results.json")


def test_table_shows_medians_ratios_and_errors() -> None:
    title, drawn = report.draw_tables(make_results(), "http")
    assert title.startswith("## http: ")
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in drawn.split("\n")]
    rows = {cells[0]: cells[1:] for cells in lines if cells}
    assert ["1000.0", "1 000", "", "", "0", "1", "1.00"] == rows["canfar"]
    assert ["100.0", "1 000", "", "", "100", "2", "10.00"] == rows["kaleden trio"]
    assert "- broken: pipe" == rows["httpx"][0]


def test_tables_are_aligned() -> None:
    assert "| a   | b |\n| --- | - |\n| 100 | 2 |" == draw_table(["a", "b"], [["100", "2"]])


def test_scenes_name_contenders_and_points_that_exist() -> None:
    for scene in SCENES.values():
        assert set(scene.contenders) <= set(CONTENDERS)
        assert set(scene.quick) <= {point.label for point in scene.points}
        assert scene.points == tuple(scene.select_points(quick=False))


def test_contender_is_limited_to_its_maxima() -> None:
    limited = Contender("x", "x", "x", max_concurrency=128, max_ids=1000, sufficient_ids=10)
    assert limited.supports(Point("", "", n=1000, concurrency=128))
    assert not limited.supports(Point("", "", n=1001))
    assert not limited.supports(Point("", "", concurrency=129))
    plan = Plan(repeats=1, patience=1, max_ids=5, quick=False)
    assert 5 == plan.count_ids(Point("", "", n=100), limited)
    assert 3 == plan.count_ids(Point("", "", n=3), limited)
