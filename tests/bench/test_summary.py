"""Tests of the goals, the pages and the pictures of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve

pytest.importorskip("benchmarks")

from benchmarks.document import fill
from benchmarks.goals import draw_goals
from benchmarks.results import Results
from benchmarks.rounds import Sample


def make_sample(scene: str, point: str, contender: str, microseconds: float) -> Sample:
    figures = {"wall": 2.0, "cpu": microseconds / 1e4, "requests": 100}
    return {"scene": scene, "point": point, "contender": contender, **figures}


def make_growth_samples(contender: str, *microseconds: float) -> list[Sample]:
    points = ("N=1000", "N=10000", "N=1000000")
    return [
        make_sample("growth", point, contender, each)
        for point, each in zip(points, microseconds, strict=False)
    ]


RUN = Results(
    {"cpu": "some", "cores": 2, "python": "3"},
    [
        *make_growth_samples("kaleden asyncio", 40, 50, 60),
        *make_growth_samples("kaleden trio", 30),
        *make_growth_samples("canfar", 600, 1000),
    ],
)


def test_goals_table_shows_goals_and_figures() -> None:
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in draw_goals(RUN).split("\n")
    ]
    rows = {line[0]: line[1:] for line in lines}
    assert ["≤ 50", "", "50.0", "-", "-"] == rows["10 000 ids, c=32: CPU µs per id"]
    assert ["≥ 12", "20", "15.0", "-", "20.0"] == rows["1 000 ids: times canfar's CPU"]
    assert ["≤ 1.5", "1.15", "1.2", "-", "-"] == rows["CPU per id of 1 000 000 over 10 000"]
    assert ["≤ 60", "", "2.0", "-", "-"] == rows["1 000 000 ids: seconds"]
    assert ["≤ 45", "30", "-", "", ""] == rows["warm blocking call, 100 ids: µs per id"]


def test_new_samples_replace_those_of_earlier_run() -> None:
    [old, *others] = RUN.samples
    new = {**old, "cpu": 1.0}
    again = Results({**RUN.environment, "environments": {"kaleden": 2}}, [new, new])
    both = again.merge_into(
        evolve(RUN, environment=RUN.environment | {"environments": {"httpx": 1}})
    )
    assert {"httpx": 1, "kaleden": 2} == both.environment["environments"]
    assert [*others, new, new] == both.samples
    assert ["N=1000", "N=10000", "N=1000000"] == both.points("growth")


def test_runs_on_different_machines_are_not_merged() -> None:
    other = Results({**RUN.environment, "cores": 4}, [])
    with pytest.raises(ValueError, match="another cores"):
        other.merge_into(RUN)


PAGE = "alpha\n<!-- goals -->\nold\n<!-- end -->\nbeta\n<!-- growth -->\n<!-- end -->\ngamma"


def test_fill_replaces_only_the_blocks_of_a_page() -> None:
    page = fill(PAGE, RUN)
    assert draw_goals(RUN) in page
    assert "| CPU µs/request, http | N=1000 | N=10000 | N=1000000 |" in page
    assert "| kaleden asyncio      | 40.0   | 50.0    | 60.0      |" in page
    assert "old" not in page
    alpha, beta, gamma = (page.index(word) for word in ("alpha", "beta", "gamma"))
    assert alpha < beta < gamma
    assert page == fill(page, RUN)


def test_same_run_gives_same_pictures(tmp_path: Path) -> None:
    plots = pytest.importorskip("benchmarks.plots")
    [first] = plots.draw(RUN, tmp_path / "a")
    [second] = plots.draw(RUN, tmp_path / "b")
    assert "growth.svg" == first.name
    assert "<svg" in first.read_text()
    assert first.read_bytes() == second.read_bytes()
