"""The layers of the package: every module imports only modules of layers below its own."""

from __future__ import annotations

import ast
import functools
import io
import tokenize
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import kaleden

PACKAGE = Path(kaleden.__file__).parent

# Each layer imports only from the layers above it in this table. A module belongs to the layer of
# its longest path prefix; modules of one layer do not import each other, unless a package is listed
# as a whole.
LAYERS = (
    "_errors _public _version distributed",
    "_wire/_enums _wire/_primitives",
    "_wire/_models _wire/_validation",
    "_wire/_decoders _wire/_spec",
    "_wire/_requests _wire/_responses _wire/_serialization",
    "_wire/_classify",
    "_wire",
    "_results/_outcome _results/_progress",
    "_results/_tables",
    "_results",
    "_http/_transport _http/_h1/_reader _http/_h1/_tls",
    "_http/_h1/_asyncio_reader _http/_h1/_nested_tls _http/_h1/_response_parser",
    "_http/_h1/_connection",
    "_http/_h1/_pool _http/_h1/_write_batch",
    "_http/_h1/_proxy",
    "_http/_h1/_connect _http/_h1/_request_writer",
    "_http/_h1",
    "_http/_anyio_options _http/_direct _http/_httpx_client",
    "_http/_anyio_transport",
    "_http/_httpx_adapter",
    "_http",
    "http progress",
    "_engine/_config _engine/_tasks _engine/_timeouts",
    "_engine/_channel _engine/_limiter",
    "_engine/_targets _engine/_retry",
    "_engine/_operations",
    "_engine/_collectors",
    "_engine",
    "_auth/_endpoint _auth/_environment _auth/_x509",
    "_auth/_canfar_config _auth/_certificates _auth/_tokens",
    "_auth/_options _auth/_tls",
    "_auth/_discovery",
    "_auth/_resolve",
    "_auth",
    "_sessions/_ledger/_process",
    "_sessions/_ledger/_file",
    "_sessions/_ledger",
    "_sessions/_monitor/_history _sessions/_monitor/_outage",
    "_sessions/_monitor/_lister",
    "_sessions/_monitor/_poller _sessions/_monitor/_unknown",
    "_sessions/_monitor/_browser _sessions/_monitor/_live_table _sessions/_monitor/_wait",
    "_sessions/_monitor",
    "_sessions/_launch/_launch_request _sessions/_launch/_script_env",
    "_sessions/_launch/_deletion _sessions/_launch/_filter",
    "_sessions/_launch/_launcher",
    "_sessions/_launch",
    "_sessions/_components _sessions/_owned_sessions _sessions/_reap",
    "_sessions/_scope",
    "_sessions",
    "_client/_streams",
    "_client/_runtime",
    "_client",
    "_sync/_loop_thread",
    "_sync/_blocking_call",
    "_sync/_blocking_context _sync/_iterables",
    "_sync/_session _sync/_streams",
    "_sync",
    "__init__",
    "local/_listener local/_platform",
    "local/_accounts local/_certificates local/_processes local/_store",
    "local/_api",
    "local/_server",
    "local",
    "parsl",
    "testing/_requests testing/_virtual_time",
    "testing/_clock_trio testing/_faults",
    "testing/_clock",
    "testing/_canned_responses",
    "testing/_memory testing/_proxy",
    "testing/_cancellation testing/_sandbox",
    "testing",
    "_cli/_argument_types _cli/_io _cli/_signals",
    "_cli/_client _cli/_parser _cli/_table",
    "_cli/_demo",
    "_cli/_commands/_logs",
    "_cli/_commands",
    "_cli/_main",
    "_cli",
    "__main__",
)
RANKS = {prefix: rank for rank, layer in enumerate(LAYERS) for prefix in layer.split()}

# Libraries that only some modules import.
CONFINED = {
    "httptools": "_http/_h1",
    "httpx": "_http",
    "starlette": "local",
    "anycorn": "local",
    "cryptography": "local",
    "trustme": "local",
    "parsl": "parsl",
    "rich": "progress _cli _results/_tables",
    "shtab": "_cli",
    "yaml": "_auth",
    "certifi": "_auth",
    # The reader of a socket is the one part of the client that depends on a backend: it saves a
    # third of the processor time of an exchange.
    "asyncio": "_http/_h1/_asyncio_reader testing",
    "trio": "testing",
    "anyio.from_thread": "_sync testing/_memory/_world",
}

# Decisions and data: these modules do not import anyio.
PURE = """
    _engine/_config _errors _public _results/_batch _results/_outcome _results/_progress
    _results/_session_list _results/_tables _sessions/_launch/_launch_request
    _sessions/_launch/_script_env _sessions/_ledger/_file _sessions/_ledger/_process _version _wire
    distributed
"""

LONGEST_MODULE = 350
"""Lines of code; docstrings, comments and blank lines are not counted."""

GENERATED = {"_sync/_generated"}

MODULES = {
    path.relative_to(PACKAGE).with_suffix("").as_posix().removesuffix("/__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def rank(module: str) -> int:
    return RANKS[longest_prefix(module, RANKS)]


def longest_prefix(module: str, prefixes: dict[str, int]) -> str:
    found = [each for each in prefixes if f"{module}/".startswith(f"{each}/")]
    assert found, f"{module} needs a layer"
    return max(found, key=len)


def is_within(module: str, prefixes: str) -> bool:
    return any(f"{module}/".startswith(f"{each}/") for each in prefixes.split())


@functools.cache
def find_imports(module: str, *, types: bool) -> set[str]:
    """Find the full names that a module imports, or those that only type checkers import."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    typed = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if (id(node) in typed) != types:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def find_modules(module: str, *, types: bool = False) -> set[str]:
    """Find the modules of kaleden that a module imports, by their paths."""
    found: set[str] = set()
    for name in find_imports(module, types=types):
        if name.split(".")[0] == "kaleden":
            path = "/".join(name.split(".")[1:])
            parent = path.rpartition("/")[0] or "__init__"
            found.add(path if path in MODULES else parent)
    return found - {module}


def top(module: str) -> str:
    return module.split("/", maxsplit=1)[0]


def find_arrows(*, types: bool = False) -> set[tuple[str, str]]:
    """Find the imports between the files and folders at the top of the package."""
    return {
        (top(module), top(other))
        for module in MODULES
        for other in find_modules(module, types=types)
        if top(module) != top(other)
    }


def code_lines(text: str) -> int:
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.DEDENT}:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def test_every_layer_has_modules() -> None:
    assert {longest_prefix(module, RANKS) for module in MODULES} == set(RANKS)


@pytest.mark.parametrize("module", MODULES)
def test_modules_import_only_lower_layers(module: str) -> None:
    here = longest_prefix(module, RANKS)
    for other in find_modules(module):
        there = longest_prefix(other, RANKS)
        assert RANKS[there] < RANKS[here] or there == here, f"{module} must not import {other}"


def test_module_imports_are_acyclic() -> None:
    TopologicalSorter({module: find_modules(module) for module in MODULES}).prepare()


def test_package_imports_are_acyclic() -> None:
    graph: dict[str, set[str]] = defaultdict(set)
    for source, target in find_arrows():
        graph[source].add(target)

    TopologicalSorter(graph).prepare()


def test_import_graph_is_small() -> None:
    typed = find_arrows(types=True)
    upwards = {(source, target) for source, target in typed if rank(source) < rank(target)}

    assert {("_errors", "_results")} == upwards
    assert len(find_arrows() | typed) <= 100


@pytest.mark.parametrize("folder", sorted({path.parent for path in MODULES.values()}), ids=str)
def test_folders_have_few_entries(folder: Path) -> None:
    entries = [each for each in folder.iterdir() if each.suffix == ".py" or each.is_dir()]
    assert len([each for each in entries if each.name != "__pycache__"]) <= 21


@pytest.mark.parametrize("module", MODULES)
def test_libraries_are_imported_only_in_their_modules(module: str) -> None:
    names = find_imports(module, types=False) | find_imports(module, types=True)
    for name in names:
        for library, places in CONFINED.items():
            if f"{name}.".startswith(f"{library}."):
                assert is_within(module, places), f"{module} must not import {name}"
        assert not name.startswith("anyio") or not is_within(module, PURE), f"{module} is pure"


@pytest.mark.parametrize("module", sorted(MODULES.keys() - GENERATED))
def test_modules_are_short(module: str) -> None:
    assert code_lines(MODULES[module].read_text(encoding="utf-8")) <= LONGEST_MODULE
