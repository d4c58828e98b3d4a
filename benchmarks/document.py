"""The tables in the documentation, made from a run, between marks that stay."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from benchmarks.goals import goals_table
from benchmarks.report import Column, columns, tables
from benchmarks.results import Results, table

_BLOCK = re.compile(r"<!-- ([a-z]+) -->\n.*?<!-- end -->", re.DOTALL)
_PACKAGES = (
    "anyio",
    "trio",
    "uvloop",
    "httptools",
    "canfar",
    "httpx",
    "httpx2",
    "aiohttp",
    "pyreqwest",
)


def fill(text: str, results: Results) -> str:
    """Put the tables of a run in their places in a page."""

    def filled(block: re.Match[str]) -> str:
        parts = "\n\n".join(part for part in _BLOCKS[block[1]](results) if part)
        return f"<!-- {block[1]} -->\n{parts}\n<!-- end -->"

    return _BLOCK.sub(filled, text)


def _matrix(results: Results, scene: str, number: int = 0, note: str = "") -> str:
    """Draw one column of a scene's tables, with the points side by side."""
    points = results.points(scene)
    if not points:
        return ""

    def cell(contender: str, point: str) -> str:
        column: Column = columns(scene, point)[number]
        figure = column.figure(results, scene, point, contender)
        return "" if figure is None else column.show(figure.median)

    title = columns(scene, points[0])[number].title
    rows = [
        [contender, *(cell(contender, point) for point in points)]
        for contender in results.contenders(scene)
    ]
    shown = [row for row in rows if any(row[1:])]
    return table([f"{title}{note}", *points], shown)


def _full(*scenes: str) -> Callable[[Results], Iterator[str]]:
    def make(results: Results) -> Iterator[str]:
        for scene in scenes:
            if results.points(scene):
                title, *drawn = tables(results, scene)
                yield f"{title.partition(': ')[2]}:"
                yield from drawn

    return make


def _http(results: Results) -> Iterator[str]:
    yield _matrix(results, "http", note=", http")
    yield _matrix(results, "tls", note=", TLS")
    yield _matrix(results, "http", 1, note=", http")
    yield _matrix(results, "http", 2, note=", http")


def _growth(results: Results) -> Iterator[str]:
    yield _matrix(results, "growth", note=", http")
    yield _matrix(results, "growth-tls", note=", TLS")
    yield _matrix(results, "streaming", note=", http, streamed")


def _latency(results: Results) -> Iterator[str]:
    yield _matrix(results, "latency")
    yield _matrix(results, "latency", 1)
    yield _matrix(results, "latency", 4)


def _memory(results: Results) -> Iterator[str]:
    yield _matrix(results, "pending", note=" that waits")
    yield _matrix(results, "collected", note=" that is kept")
    yield _matrix(results, "streamed", note=", streamed")


def _storm(results: Results) -> Iterator[str]:
    for number in (1, 2, 0):
        yield _matrix(results, "storm", number)


def _others(results: Results) -> Iterator[str]:
    yield _matrix(results, "engine", note=", engine alone")
    yield _matrix(results, "calls", note=", calls")
    yield _matrix(results, "waiting")
    yield _matrix(results, "turns", note=", turns")
    yield _matrix(results, "import", note=", import")


def _environment(results: Results) -> Iterator[str]:
    told = results.environment
    installed: dict[str, str] = {}
    for environment in told["environments"].values():
        installed = environment.get("versions", {}) | installed
    versions = ", ".join(f"{name} {installed[name]}" for name in _PACKAGES if name in installed)
    loads = [sample["load"] for sample in results.samples if sample.get("load") is not None]
    first = " Clients and servers went before all of them (`--first`)." if told["first"] else ""
    yield (
        f"{told['when']}; {told['cpu']}, {told['cores']} cores; {told['system']}; "
        f"{told['python']}; "
        f"{versions}. While it ran, {min(loads):.1f} to {max(loads):.1f} processes wanted to run, "
        f"the run's own included.{first}"
    )


_BLOCKS: dict[str, Callable[[Results], Iterator[str]]] = {
    "goals": lambda results: iter([goals_table(results)]),
    "http": _http,
    "growth": _growth,
    "latency": _latency,
    "memory": _memory,
    "storm": _storm,
    "cancel": _full("cancel", "beside"),
    "others": _others,
    "environment": _environment,
}
