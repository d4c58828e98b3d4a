"""What is public is public in one place, and says so."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import pickle
import subprocess
import sys
from types import ModuleType

import pytest

import kaleden

PUBLIC = (
    "kaleden",
    "kaleden.distributed",
    "kaleden.http",
    "kaleden.local",
    "kaleden.parsl",
    "kaleden.progress",
    "kaleden.testing",
)
LEAVES = ("kaleden.distributed", "kaleden.parsl", "kaleden.progress")
"""Modules with code of their own, which import names for their own use."""


def is_defined_in(module: ModuleType, value: object) -> bool:
    is_code = inspect.isclass(value) or inspect.isfunction(value)
    return is_code and getattr(value, "__module__", None) == module.__name__


@pytest.fixture(params=PUBLIC)
def module(request: pytest.FixtureRequest) -> ModuleType:
    if request.param in {"kaleden.local", "kaleden.testing"}:
        pytest.importorskip("anycorn")
        pytest.importorskip("starlette")
    if request.param == "kaleden.parsl":
        pytest.importorskip("parsl")
    return importlib.import_module(request.param)


def test_all_is_a_sorted_tuple_of_what_is_there(module: ModuleType) -> None:
    assert isinstance(module.__all__, tuple)
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        assert hasattr(module, name)


def test_nothing_public_is_left_out(module: ModuleType) -> None:
    if module.__name__ in LEAVES:
        own = {name: value for name, value in vars(module).items() if is_defined_in(module, value)}
    else:
        own = {name: value for name, value in vars(module).items() if not inspect.ismodule(value)}
    public = {name for name in own if not name.startswith("_")} - {"annotations"}
    assert public - set(module.__all__) == set()


def test_public_classes_say_where_they_are_public(module: ModuleType) -> None:
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert module.__name__ == value.__module__, name


def members(kind: type) -> list[tuple[str, object]]:
    """The public methods and properties that a class has of us."""
    rooms = [room for room in kind.__mro__ if room.__module__.startswith("kaleden")]
    found = [(name, value) for room in rooms for name, value in vars(room).items()]
    return [
        (name, getattr(value, "__func__", value))
        for name, value in found
        if not name.startswith("_") and (callable(value) or hasattr(value, "__get__"))
    ]


def test_public_things_have_docstrings(module: ModuleType) -> None:
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, name
        if inspect.isclass(value):
            for each, member in members(value):
                if inspect.isfunction(member) or isinstance(member, property):
                    assert member.__doc__, f"{name}.{each}"


def test_async_methods_tell_of_cancellation() -> None:
    for name, method in inspect.getmembers(kaleden.AsyncSession, inspect.iscoroutinefunction):
        if not name.startswith("_"):
            assert "Cancellation:" in (inspect.getdoc(method) or ""), name


def loaded_by(*statements: str) -> set[str]:
    """Every module that is loaded after *statements*, in a new interpreter."""
    program = "\n".join([*statements, "import sys", "print(*sys.modules)"])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


EXTRAS = {"trio", "starlette", "anycorn", "trustme", "cryptography", "rich", "pytest"}
# Each costs milliseconds, and most programs need none of them, or not before they are at work.
LATER = {
    "asyncio",
    "cattrs",
    "certifi",
    "email.utils",
    "httpx",
    "importlib.metadata",
    "kaleden._sync",
    "urllib.request",
    "webbrowser",
    "yaml",
}


def test_importing_kaleden_loads_no_extra_and_nothing_slow_before_its_time() -> None:
    assert set() == loaded_by("import kaleden") & (EXTRAS | LATER)


def test_the_plain_client_is_loaded_when_somebody_asks_for_it() -> None:
    assert "kaleden._sync" not in loaded_by("from kaleden import AsyncSession")
    for asking in ("kaleden.Session", "kaleden.SyncScope", "from kaleden import *; Session"):
        assert "kaleden._sync" in loaded_by("import kaleden", asking)


def test_what_is_loaded_later_is_shown_all_along() -> None:
    shown = "import kaleden; assert {*kaleden.__all__, '__all__'} <= set(dir(kaleden))"
    assert "kaleden._sync" not in loaded_by(shown)
    assert kaleden.Session is vars(kaleden)["Session"]
    with pytest.raises(AttributeError, match="has no attribute 'Sesion'"):
        getattr(kaleden, "Sesion")  # noqa: B009 - a type checker would see this


def test_every_name_survives_a_pickle() -> None:
    for name in kaleden.__all__:
        value = getattr(kaleden, name)
        if inspect.isclass(value):
            assert value is pickle.loads(pickle.dumps(value))


def test_the_release_is_told_once() -> None:
    assert importlib.metadata.version("kaleden") == kaleden.__version__
