"""Completeness of `tests/typing`, which mypy and pyright check and no test executes."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import kaleden

STATEMENTS = Path(__file__).with_name("typing")
CLASSES = (
    kaleden.AsyncSession,
    kaleden.LogStream,
    kaleden.OutcomeStream,
    kaleden.Outcomes,
    kaleden.Scope,
    kaleden.Session,
    kaleden.Streams,
    kaleden.SyncScope,
    kaleden.SyncStreams,
)


def find_attributes(kind: type) -> set[str]:
    """Find the attributes of *kind*, and of parameters of that type, in the typing cases."""
    found: set[str] = set()
    for file in sorted(STATEMENTS.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found |= _find_in_function(node, kind.__name__)
    return found


def _find_in_function(function: ast.FunctionDef | ast.AsyncFunctionDef, kind: str) -> set[str]:
    names = {kind} | {
        argument.arg
        for argument in function.args.args
        if ast.unparse(argument.annotation or function).partition("[")[0] == kind
    }
    return {
        node.attr
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in names
    }


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_public_method_has_typing_case(kind: type) -> None:
    public = {
        name
        for name, value in inspect.getmembers(kind)
        if not name.startswith("_") and (callable(value) or isinstance(value, property))
    }
    assert set() == public - find_attributes(kind)


def test_typing_cases_include_errors() -> None:
    for file in STATEMENTS.glob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert "# type: ignore[" in text, file.name
        assert "# pyright: reportUnnecessaryTypeIgnoreComment=true" in text, file.name
