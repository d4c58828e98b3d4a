"""The reference page says what the parser says."""

from __future__ import annotations

from pathlib import Path

import pytest

from _cli.reference import reference

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "command-line.md"


@pytest.mark.skipif(not PAGE.exists(), reason="the suite runs away from its checkout")
def test_the_page_is_as_the_parser_tells_it() -> None:
    written = "python tests/_cli/reference.py > docs/reference/command-line.md"
    assert reference() == PAGE.read_text(encoding="utf-8"), f"write it anew: {written}"
