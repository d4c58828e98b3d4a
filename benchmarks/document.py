"""The tables of a run in a page of documentation, between marker comments."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from benchmarks.goals import draw_goals
from benchmarks.report import Column, draw_tables, list_columns
from benchmarks.results import Results, draw_table

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
    """Replace the marked blocks of a page by the tables of a run."""

    def fill_block(block: re.Match[str]) -> str:
        parts = "\n\n".join(part for part in _BLOCKS[block[1]](results) if part)
        return f"<!-- {block[1]} -->\n{parts}\n<!-- end -->"

    return _BLOCK.sub(fill_block, text)


def _draw_matrix(results: Results, scene: str, number: int = 0, note: str = "") -> str:
    """Draw one column of the tables of a scene, with one column for each point."""
    points = results.points(scene)
    if not points:
        return ""

    def cell(contender: str, point: str) -> str:
        column: Column = list_columns(scene, point)[number]
        figure = column.figure(results, scene, point, contender)
        return "" if figure is None else column.show(figure.median)

    title = list_columns(scene, points[0])[number].title
    rows = [
        [contender, *(cell(contender, point) for point in points)]
        for contender in results.contenders(scene)
    ]
    filled = [row for row in rows if any(row[1:])]
    return draw_table([f"{title}{note}", *points], filled)


def _make_full_tables(*scenes: str) -> Callable[[Results], Iterator[str]]:
    def make(results: Results) -> Iterator[str]:
        for scene in scenes:
            if results.points(scene):
                title, *drawn = draw_tables(results, scene)
                yield f"{title.partition(': ')[2]}:"
                yield from drawn

    return make


def _draw_http(results: Results) -> Iterator[str]:
    yield _draw_matrix(results, "http", note=", http")
    yield _draw_matrix(results, "tls", note=", TLS")
    yield _draw_matrix(results, "http", 1, note=", http")
    yield _draw_matrix(results, "http", 2, note=", http")


def _draw_growth(results: Results) -> Iterator[str]:
    yield _draw_matrix(results, "growth", note=", http")
    yield _draw_matrix(results, "growth-tls", note=", TLS")
    yield _draw_matrix(results, "streaming", note=", http, streamed")


def _draw_latency(results: Results) -> Iterator[str]:
    yield _draw_matrix(results, "latency")
    yield _draw_matrix(results, "latency", 1)
    yield _draw_matrix(results, "latency", 4)


def _draw_memory(results: Results) -> Iterator[str]:
    yield _draw_matrix(results, "pending", note=" that waits")
    yield _draw_matrix(results, "collected", note=" that is kept")
    yield _draw_matrix(results, "streamed", note=", streamed")


def _draw_storm(results: Results) -> Iterator[str]:
    for number in (1, 2, 0):
        yield _draw_matrix(results, "storm", number)


def _draw_others(results: Results) -> Iterator[str]:
    yield _draw_matrix(results, "engine", note=", engine alone")
    yield _draw_matrix(results, "calls", note=", calls")
    yield _draw_matrix(results, "waiting")
    yield _draw_matrix(results, "turns", note=", turns")
    yield _draw_matrix(results, "import", note=", import")


def _describe_environment(results: Results) -> Iterator[str]:
    about = results.environment
    installed: dict[str, str] = {}
    for environment in about["environments"].values():
        installed = environment.get("versions", {}) | installed
    versions = ", ".join(f"{name} {installed[name]}" for name in _PACKAGES if name in installed)
    loads = [sample["load"] for sample in results.samples if sample.get("load") is not None]
    first = " Clients and servers had real-time priority (`--first`)." if about["first"] else ""
    yield (
        f"{about['when']}; {about['cpu']}, {about['cores']} cores; {about['system']}; "
        f"{about['python']}; "
        f"{versions}. The load average was {min(loads):.1f} to {max(loads):.1f}, including the "
        f"benchmark itself.{first}"
    )


_BLOCKS: dict[str, Callable[[Results], Iterator[str]]] = {
    "goals": lambda results: iter([draw_goals(results)]),
    "http": _draw_http,
    "growth": _draw_growth,
    "latency": _draw_latency,
    "memory": _draw_memory,
    "storm": _draw_storm,
    "cancel": _make_full_tables("cancel", "beside"),
    "others": _draw_others,
    "environment": _describe_environment,
}
