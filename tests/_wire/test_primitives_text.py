"""Extraction of messages from response bodies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaleden._wire import _primitives


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("<html><title>\n Not  Found </title><body>x", "Not Found"),
        ("<TITLE lang=en>A &amp; B</TITLE>", "A & B"),
        ("<html><head><title></title></head><body><h1>Sorry</h1>gone", "Sorry gone"),
        ("<html><script>var x = '<p>';</script><style>p {}</style><p>Sorry", "Sorry"),
        ("<html><!-- no --><p>Sorry<br", "Sorry"),
        ("<html><script>never closed", ""),
        ("", ""),
    ],
)
def test_page_text_is_the_title_or_the_start_of_the_body(page: str, expected: str) -> None:
    assert expected == _primitives.extract_page_text(page)


@given(st.text(st.sampled_from("<>/!- titlescrphad=\"'&;x")))
def test_page_text_of_any_page_is_one_line(page: str) -> None:
    line = _primitives.extract_page_text(page)

    assert line.isprintable()
    assert len(line) <= _primitives.MAX_MESSAGE


@pytest.mark.parametrize("start", ["<!doctype html>", "\n <HTML>", "<!DOCTYPE HTML PUBLIC"])
def test_html_is_recognized_by_its_start(start: str) -> None:
    assert _primitives.is_html("", start)
    assert _primitives.is_html("text/plain", start)


@pytest.mark.parametrize("text", ["", "<none>", "htm", "see <html>"])
def test_other_text_is_html_only_by_content_type(text: str) -> None:
    assert not _primitives.is_html("text/plain", text)
    assert _primitives.is_html("application/xhtml+xml", text)


@given(st.text(), st.integers(1, 20))
def test_formatted_line_is_never_longer_than_its_limit(text: str, limit: int) -> None:
    assert len(_primitives.format_one_line(text, limit)) <= limit


@pytest.mark.parametrize("piece", ["<title", "<head", "<!--", "<", "&amp;", '"kind":"Status"'])
def test_adversarial_page_is_parsed(piece: str) -> None:
    page = _primitives.decode_excerpt(piece.encode() * 1_000_000)

    assert len(page) < 20_000
    assert _primitives.extract_page_text(page).isprintable()
    assert _primitives.extract_kubernetes_message(page) is None
