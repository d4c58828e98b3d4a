"""Imports run one way: a module knows those before it, never those after it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import kaleden

PACKAGE = Path(kaleden.__file__).parent

# Each layer may import from the ones before it. A layer of several names is one room each, side by
# side.
LAYERS: tuple[tuple[str, ...], ...] = (
    (
        "_adaptive",
        "_budget",
        "_errors",
        "_exports",
        "_owner",
        "_serve_options",
        "_version",
        "distributed",
    ),
    ("_policy", "_wire"),
    ("_results", "_tally"),
    ("_show",),
    (
        "_outcomes",
        "_session_list",
        "_bars",
        "_tasks",
        "_turns",
        "_pace",
        "_ledger_file",
        "_ticket",
        "_growing_log",
        "_blocks",
    ),
    ("_answers", "_courier", "_gate", "_http", "_handoff", "_ledger", "_operation", "progress"),
    ("_login", "_retry", "_sinks", "_source", "http"),
    ("_engine",),
    ("_operations", "_lister"),
    ("_poller",),
    ("_connect", "_destroy", "_launch", "_watch"),
    ("_create", "_reap", "_follow", "_holdings", "_members", "_onlook"),
    ("_rooms",),
    ("_scope", "_stream"),
    ("_run",),
    ("_client",),
    ("_queries",),
    ("_session",),
    ("_sync",),
    ("__init__",),
    ("_interrupt", "_parsl", "local"),
    ("parsl",),
    ("testing",),
    ("_demo",),
    ("_commands",),
    ("__main__",),
)
RANK = {room: rank for rank, rooms in enumerate(LAYERS) for room in rooms}
MODULES = sorted(PACKAGE.rglob("*.py"))

# What only some rooms may know.
CONFINED = {
    "httptools": {"_http"},
    "httpcore": {"_http"},
    "httpx": {"_http"},
    "starlette": {"local"},
    "anycorn": {"local"},
    "cryptography": {"local"},
    "trustme": {"local"},
    "parsl": {"_parsl"},
    "rich": {"_bars", "_commands", "_demo", "_show"},
    "shtab": {"_commands"},
    "asyncio": {"testing"},
    "trio": {"testing"},
    "yaml": {"_login"},
    "asn1crypto": {"_login"},
    "certifi": {"_login"},
}

# The one module of a backend's own outside them: what it gains is measured, and large.
OF_A_BACKEND = {"_http/_asyncio.py": "asyncio"}

# What is decided or described without waiting for anything.
PURE = {
    "_adaptive",
    "_blocks",
    "_budget",
    "_errors",
    "_exports",
    "_ledger_file",
    "_operations",
    "_outcomes",
    "_owner",
    "_pace",
    "_policy",
    "_results",
    "_session_list",
    "_show",
    "_tally",
    "_ticket",
    "_version",
    "_wire",
    "distributed",
}


def room(module: Path) -> str:
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(module: Path) -> list[str]:
    """Every module that is imported, by its full name."""
    found: list[str] = []
    tree = ast.parse(module.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def for_types_only(module: Path) -> set[str]:
    tree = ast.parse(module.read_text(encoding="utf-8"))
    blocks = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
    ]
    return {
        f"{node.module}.{alias.name}"
        for block in blocks
        for node in ast.walk(block)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def target(name: str) -> str | None:
    """The room that an import of our own leads to."""
    parts = name.split(".")
    if parts[0] != "kaleden":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in RANK else "__init__"


def test_every_room_has_its_place() -> None:
    assert {room(module) for module in MODULES} == set(RANK)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(PACKAGE)))
def test_imports_run_one_way(module: Path) -> None:
    here = room(module)
    for name in set(imports(module)) - for_types_only(module):
        there = target(name)
        if there is not None and there != here:
            assert RANK[there] < RANK[here], f"{here} must not import {name}"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(PACKAGE)))
def test_libraries_stay_in_their_rooms(module: Path) -> None:
    for name in imports(module):
        library = name.split(".")[0]
        if library == OF_A_BACKEND.get(module.relative_to(PACKAGE).as_posix()):
            continue
        assert room(module) in CONFINED.get(library, {room(module)}), f"{name} in {module.name}"
        assert not name.startswith("anyio.from_thread") or room(module) == "_sync"
        assert library != "anyio" or room(module) not in PURE, f"{module.name} is to be pure"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(PACKAGE)))
def test_modules_can_be_read_in_one_sitting(module: Path) -> None:
    assert len(module.read_text(encoding="utf-8").splitlines()) <= 400
