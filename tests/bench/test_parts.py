"""What the harness is made of, by itself."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

# They stay behind when the package is tested away from its checkout.
pytest.importorskip("benchmarks")

from benchmarks import payload, report
from benchmarks.contenders import CONTENDERS, Contender
from benchmarks.drivers.child import check
from benchmarks.drivers.raw_client import parse
from benchmarks.results import Figure, Results, cpu_per_request, rate, read, server_share, table
from benchmarks.rounds import Plan, Sample
from benchmarks.scenes import SCENES, Point

REPLY = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 2\r\n\r\n{}"


def test_a_session_object_has_906_bytes_and_its_id_inside() -> None:
    [key] = payload.first_keys(1)
    assert 906 == len(payload.body(key).encode())
    assert key == json.loads(payload.body(key))["id"]


def test_ids_are_all_different_and_of_one_length() -> None:
    keys = list(itertools.islice(payload.keys(), 100_000))
    assert 100_000 == len(set(keys))
    assert {payload.ID_LENGTH} == {len(key) for key in keys}


def test_answers_must_be_those_to_the_questions_in_their_order() -> None:
    check(["a", "b"], ["a", "b"])
    for told in (["b", "a"], ["a"], ["a", "b", "b"], []):
        with pytest.raises(ValueError, match="not those to what was asked"):
            check(["a", "b"], told)


@given(st.binary(max_size=30))
def test_the_strict_parser_gives_the_body_of_a_plain_reply_only(body: bytes) -> None:
    reply = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    assert body == parse(reply)
    for cut in range(len(reply)):
        assert parse(reply[:cut]) is None


@pytest.mark.parametrize(
    "reply",
    [
        REPLY + b"x",
        REPLY.replace(b"200", b"404"),
        REPLY.replace(b"Server: x", b"Transfer-Encoding: chunked"),
        REPLY.replace(b"Server: x", b"Content-Length: 2"),
        REPLY.replace(b"Server: x", b" folded"),
        REPLY.replace(b"Content-Length: 2", b"Connection: close"),
        REPLY.replace(b"Content-Length: 2", b"Content-Length: +2"),
        REPLY.replace(b"\r\nContent", b"\nContent"),
    ],
)
def test_the_strict_parser_refuses_what_it_does_not_understand(reply: bytes) -> None:
    with pytest.raises(ValueError, match="reply"):
        parse(reply)


def test_a_figure_has_its_median_and_its_spread() -> None:
    assert 3 == Figure((1, 9, 3)).median
    assert 0 == Figure((5,)).spread
    assert 0.5 == Figure((6, 9, 10, 14, 100, 10, 10)).spread


def test_figures_are_computed_from_samples() -> None:
    sample = {"wall": 2.0, "cpu": 1.0, "requests": 1000, "server_cpu": 0.5}
    assert 1000 == cpu_per_request(sample)
    assert 500 == rate(sample)
    assert 25 == server_share(sample)


def test_by_the_clock_only_the_quietest_third_counts() -> None:
    base = {"scene": "http", "point": "c=32", "contender": "wrk", "requests": 100}
    samples = [{**base, "wall": 10.0 - n, "waited": n / 10} for n in (5, 0, 3, 2)]
    results = Results({}, samples)
    quiet = results.figure("http", "c=32", "wrk", rate, by_clock=True)
    assert Figure((10.0, 12.5)) == quiet
    every = results.figure("http", "c=32", "wrk", rate)
    assert every is not None
    assert 4 == len(every.values)


def test_what_is_not_known_has_no_figure() -> None:
    assert server_share({"wall": 2.0}) is None
    assert cpu_per_request({}) is None
    assert rate({}) is None


def some_results() -> Results:
    base = {"scene": "http", "point": "c=32", "wall": 1.0, "requests": 1000}
    samples: list[Sample] = [
        {**base, "contender": "canfar", "cpu": 1.0},
        {**base, "contender": "kaleden trio", "cpu": 0.05},
        {**base, "contender": "kaleden trio", "cpu": 0.15},
        {"scene": "http", "point": "c=32", "contender": "httpx", "error": "broken: pipe"},
    ]
    return Results({"cpu": "some"}, samples)


def test_results_can_be_read_again(tmp_path: Path) -> None:
    some_results().write(tmp_path / "results.json")
    assert some_results() == read(tmp_path / "results.json")


def test_a_table_tells_medians_ratios_and_what_failed() -> None:
    title, drawn = report.tables(some_results(), "http")
    assert title.startswith("## http: ")
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in drawn.split("\n")]
    rows = {cells[0]: cells[1:] for cells in lines if cells}
    assert ["1000.0", "1 000", "", "", "0", "1", "1.00"] == rows["canfar"]
    assert ["100.0", "1 000", "", "", "100", "2", "10.00"] == rows["kaleden trio"]
    assert "- broken: pipe" == rows["httpx"][0]


def test_tables_are_aligned() -> None:
    assert "| a   | b |\n| --- | - |\n| 100 | 2 |" == table(["a", "b"], [["100", "2"]])


def test_scenes_name_contenders_and_points_that_exist() -> None:
    for scene in SCENES.values():
        assert set(scene.contenders) <= set(CONTENDERS)
        assert set(scene.quick) <= {point.label for point in scene.points}
        assert scene.points == tuple(scene.shown(quick=False))


def test_a_contender_is_not_asked_for_more_than_it_can_or_need_be() -> None:
    modest = Contender("x", "x", "x", most_concurrency=128, most_ids=1000, enough=10)
    assert modest.can(Point("", "", n=1000, concurrency=128))
    assert not modest.can(Point("", "", n=1001))
    assert not modest.can(Point("", "", concurrency=129))
    plan = Plan(repeats=1, patience=1, most_ids=5, quick=False)
    assert 5 == plan.ids(Point("", "", n=100), modest)
    assert 3 == plan.ids(Point("", "", n=3), modest)
