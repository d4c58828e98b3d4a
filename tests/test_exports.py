"""The public names of each module, their docstrings, and lazy imports."""

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
"""Modules that define public names themselves, and import other names for internal use."""


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


def test_all_is_tuple_of_existing_names(module: ModuleType) -> None:
    assert isinstance(module.__all__, tuple)
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        assert hasattr(module, name)


def test_all_has_every_public_name(module: ModuleType) -> None:
    if module.__name__ in LEAVES:
        own = {name: value for name, value in vars(module).items() if is_defined_in(module, value)}
    else:
        own = {name: value for name, value in vars(module).items() if not inspect.ismodule(value)}
    public = {name for name in own if not name.startswith("_")} - {"annotations"}
    assert public - set(module.__all__) == set()


def test_public_names_have_public_module(module: ModuleType) -> None:
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert module.__name__ == value.__module__, name


def find_members(kind: type) -> list[tuple[str, object]]:
    """Find the public methods and properties that kaleden defines for a class."""
    bases = [base for base in kind.__mro__ if base.__module__.startswith("kaleden")]
    found = [(name, value) for base in bases for name, value in vars(base).items()]
    return [
        (name, getattr(value, "__func__", value))
        for name, value in found
        if not name.startswith("_") and (callable(value) or hasattr(value, "__get__"))
    ]


def test_public_names_have_docstrings(module: ModuleType) -> None:
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, name
        if inspect.isclass(value):
            for attribute, member in find_members(value):
                if inspect.isfunction(member) or isinstance(member, property):
                    assert member.__doc__, f"{name}.{attribute}"


def test_async_methods_document_cancellation() -> None:
    for name, method in inspect.getmembers(kaleden.AsyncSession, inspect.iscoroutinefunction):
        if not name.startswith("_"):
            assert "Cancellation:" in (inspect.getdoc(method) or ""), name


def find_loaded_modules(*statements: str) -> set[str]:
    """Return all modules that are loaded after *statements* in a new interpreter."""
    program = "\n".join([*statements, "import sys", "print(*sys.modules)"])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


EXTRAS = {"trio", "starlette", "anycorn", "trustme", "cryptography", "rich", "pytest"}
# Each import takes milliseconds, and most programs do not need these modules at start.
LAZY = {
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


def test_import_loads_no_extra_and_no_slow_module() -> None:
    assert set() == find_loaded_modules("import kaleden") & (EXTRAS | LAZY)


def test_sync_client_is_imported_lazily() -> None:
    assert "kaleden._sync" not in find_loaded_modules("from kaleden import AsyncSession")
    for statement in ("kaleden.Session", "kaleden.SyncScope", "from kaleden import *; Session"):
        assert "kaleden._sync" in find_loaded_modules("import kaleden", statement)


def test_lazy_names_are_in_dir() -> None:
    program = "import kaleden; assert {*kaleden.__all__, '__all__'} <= set(dir(kaleden))"
    assert "kaleden._sync" not in find_loaded_modules(program)
    assert kaleden.Session is vars(kaleden)["Session"]
    with pytest.raises(AttributeError, match="has no attribute 'Sesion'"):
        getattr(kaleden, "Sesion")  # noqa: B009 - a type checker would reject the attribute


def test_public_classes_can_be_pickled() -> None:
    for name in kaleden.__all__:
        value = getattr(kaleden, name)
        if inspect.isclass(value):
            assert value is pickle.loads(pickle.dumps(value))


def test_version_matches_metadata() -> None:
    assert importlib.metadata.version("kaleden") == kaleden.__version__
