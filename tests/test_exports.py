"""What is public is public in one place, and says so."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from types import ModuleType

import pytest

import kaleden

PUBLIC = ("kaleden", "kaleden.distributed", "kaleden.http", "kaleden.local", "kaleden.testing")


@pytest.fixture(params=PUBLIC)
def module(request: pytest.FixtureRequest) -> ModuleType:
    if request.param in {"kaleden.local", "kaleden.testing"}:
        pytest.importorskip("anycorn")
        pytest.importorskip("starlette")
    return importlib.import_module(request.param)


def test_all_is_a_sorted_tuple_of_what_is_there(module: ModuleType) -> None:
    assert isinstance(module.__all__, tuple)
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        assert hasattr(module, name)


def test_nothing_public_is_left_out(module: ModuleType) -> None:
    if module is kaleden.distributed:
        shown = {name for name, value in vars(module).items() if inspect.isfunction(value)}
    else:
        shown = {name for name, value in vars(module).items() if not inspect.ismodule(value)}
    public = {name for name in shown if not name.startswith("_")} - {"annotations"}
    assert public - set(module.__all__) == set()


def test_public_classes_say_where_they_are_public(module: ModuleType) -> None:
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert module.__name__ == value.__module__, name


def test_public_things_have_docstrings(module: ModuleType) -> None:
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), name


def test_async_methods_tell_of_cancellation() -> None:
    for name, method in inspect.getmembers(kaleden.AsyncSession, inspect.iscoroutinefunction):
        if not name.startswith("_"):
            assert "Cancellation:" in (inspect.getdoc(method) or ""), name


def test_importing_kaleden_loads_no_extra() -> None:
    program = (
        "import sys, kaleden;"
        "print([name for name in ('trio', 'starlette', 'anycorn') if name in sys.modules])"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "[]" == loaded.stdout.strip()
