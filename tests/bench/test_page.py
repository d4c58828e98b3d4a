"""Tests that the page about benchmarks shows the published run."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("benchmarks")

from benchmarks.document import fill
from benchmarks.results import read

HERE = Path(__file__).parents[2] / "docs" / "explanation"


def test_page_shows_tables_of_published_run() -> None:
    page = (HERE / "benchmarks.md").read_text(encoding="utf-8")
    run = HERE / "benchmarks" / "run.json"
    assert page == fill(page, read(run))
    assert run.stat().st_size < 300_000


def test_pictures_of_page_exist() -> None:
    page = (HERE / "benchmarks.md").read_text(encoding="utf-8")
    named = {line.split("(")[1].rstrip(")") for line in page.splitlines() if line.startswith("![")}
    assert named
    assert named <= {f"benchmarks/{path.name}" for path in (HERE / "benchmarks").iterdir()}
