"""The reference documents every public name once."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

import pytest_kaleden

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
if not REFERENCE.exists():
    pytest.skip("needs a checkout", allow_module_level=True)

PAGES = {page.stem: page.read_text(encoding="utf-8") for page in REFERENCE.glob("*.md")}
MODULE_PAGES = {
    "kaleden.distributed": "distributed",
    "kaleden.http": "http",
    "kaleden.local": "local",
    "kaleden.parsl": "parsl",
    "kaleden.progress": "progress",
    "kaleden.testing": "testing",
}


def list_documented_names(page: str) -> list[str]:
    return re.findall(r"^\.\. auto(?:class|data|exception|function):: (\w+)$", page, re.MULTILINE)


@pytest.mark.parametrize("name", MODULE_PAGES)
def test_every_name_of_module_is_documented_once(name: str) -> None:
    if name in {"kaleden.local", "kaleden.testing"}:
        pytest.importorskip("anycorn")
    if name == "kaleden.parsl":
        pytest.importorskip("parsl")
    module = importlib.import_module(name)
    page = PAGES[MODULE_PAGES[name]]
    assert f".. automodule:: {name}\n" in page
    assert sorted(module.__all__) == sorted(list_documented_names(page))


def test_every_name_of_package_is_documented_once() -> None:
    kaleden = importlib.import_module("kaleden")
    pages = [page for page in PAGES.values() if ".. currentmodule:: kaleden\n" in page]
    names = [name for page in pages for name in list_documented_names(page)]
    assert sorted(set(kaleden.__all__) - {"distributed"}) == sorted(names)


def test_every_fixture_is_documented() -> None:
    fixtures = {name for name in vars(pytest_kaleden) if name.startswith("kaleden_")}
    assert fixtures == set(list_documented_names(PAGES["pytest"]))


def test_error_tree_matches_classes() -> None:
    kaleden = importlib.import_module("kaleden")
    parents: dict[int, str] = {}
    drawn = {}
    tree = importlib.import_module("kaleden._errors").__doc__ or ""
    for line in re.findall(r"^    [│├└ ─]*\w+.*$", tree, re.MULTILINE):
        name = re.search(r"\w+", line)
        assert name is not None
        depth = name.start() // 4
        parents[depth] = name[0]
        drawn[name[0]] = parents.get(depth - 1)
    errors = {name: getattr(kaleden, name) for name in list_documented_names(PAGES["errors"])}
    bases = {
        name: next((base.__name__ for base in error.__bases__ if base.__name__ in errors), None)
        for name, error in errors.items()
    }
    assert bases == drawn
