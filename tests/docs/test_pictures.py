"""The committed pictures match the output of the program that draws them."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
if not (DOCS / "_tools").exists():
    pytest.skip("needs a checkout", allow_module_level=True)

PICTURES = runpy.run_path(str(DOCS / "_tools" / "draw.py"))["PICTURES"]


@pytest.mark.parametrize("name", PICTURES)
def test_picture_matches_program(name: str) -> None:
    kept = DOCS / "explanation" / "pictures" / name
    assert PICTURES[name]() == kept.read_text(encoding="utf-8"), "run docs/_tools/draw.py"
