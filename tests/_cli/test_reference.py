"""The reference page of the command line matches its parser."""

from __future__ import annotations

from pathlib import Path

import pytest

from _cli.reference import format_reference

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "command-line.md"


@pytest.mark.skipif(not PAGE.exists(), reason="needs a checkout")
def test_page_matches_parser() -> None:
    command = "python tests/_cli/reference.py > docs/reference/command-line.md"
    assert format_reference() == PAGE.read_text(encoding="utf-8"), f"regenerate it: {command}"
