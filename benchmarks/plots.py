"""Pictures of a run, as SVG."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.report import list_columns
from benchmarks.results import Results

Picture = Callable[[Results, str], Figure]

_COLOURS = {
    "kaleden asyncio": "#0b6e4f",
    "kaleden uvloop": "#21a179",
    "kaleden trio": "#08415c",
    "kaleden raw": "#7fb800",
    "canfar": "#c1292e",
    "httpx": "#e08e45",
    "httpx + kaleden.http": "#a04000",
    "httpx2": "#f1c40f",
    "aiohttp": "#7d5ba6",
    "pyreqwest": "#5e6472",
    "epoll loop": "#aaaaaa",
    "wrk": "#d5d5d5",
}
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "kaleden",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw(results: Results, folder: Path) -> list[Path]:
    """Draw the pictures that the results have samples for; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(_STYLE):
        return [
            _save(make(results, scene), folder / f"{scene}.svg")
            for scene, make in _PICTURES.items()
            if results.points(scene)
        ]


def _save(figure: Figure, path: Path) -> Path:
    # Without a date, the same results give the same file.
    figure.savefig(path, format="svg", metadata={"Date": None}, bbox_inches="tight")
    return path


def _make_axes(title: str, across: str, up: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(6.4, 3.8))
    axes = figure.subplots()
    axes.set_title(title, loc="left")
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    return figure, axes


def _draw_lines(results: Results, scene: str, axes: Any) -> None:
    """Draw a line for each contender; the numbers in the labels of the points are the x values."""
    for contender in results.contenders(scene):
        known = []
        for point in results.points(scene):
            figure = list_columns(scene, point)[0].figure(results, scene, point, contender)
            if figure is not None:
                known.append((float(point.partition("=")[2]), figure.median))
        if known:
            across, up = zip(*known, strict=True)
            axes.plot(across, up, "o-", label=contender, color=_COLOURS[contender], markersize=4)
    axes.set_xscale("log")
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)


def _make_cost_picture(title: str, across: str) -> Picture:
    """Return a function that draws the CPU time per request."""

    def make(results: Results, scene: str) -> Figure:
        figure, axes = _make_axes(title, across, "CPU µs per request")
        axes.set_yscale("log")
        _draw_lines(results, scene, axes)
        return figure

    return make


def _draw_latency(results: Results, scene: str) -> Figure:
    figure, axes = _make_axes(
        "A server that takes 50 ms", "requests at once", "% of the ideal rate"
    )
    axes.set_ylim(0, 102)
    _draw_lines(results, scene, axes)
    return figure


def _make_bar_picture(title: str, across: str) -> Picture:
    """Return a function that draws one bar for each contender, for the last point."""

    def make(results: Results, scene: str) -> Figure:
        figure, axes = _make_axes(title, across, "")
        point = results.points(scene)[-1]
        column = list_columns(scene, point)[0]
        for contender in results.contenders(scene):
            value = column.figure(results, scene, point, contender)
            if value is not None:
                bars = axes.barh(contender, value.median, color=_COLOURS[contender])
                axes.bar_label(bars, fmt="{:,.0f}", padding=2)
        axes.invert_yaxis()
        axes.set_xscale("log")
        return figure

    return make


_AT_ONCE = "requests at once"
_PICTURES: dict[str, Picture] = {
    "http": _make_cost_picture("10 000 ids, http", _AT_ONCE),
    "tls": _make_cost_picture("10 000 ids, TLS", _AT_ONCE),
    "growth": _make_cost_picture("32 at once, http", "ids"),
    "growth-tls": _make_cost_picture("32 at once, TLS", "ids"),
    "latency": _draw_latency,
    "pending": _make_bar_picture("An id that waits for its turn", "bytes"),
    "collected": _make_bar_picture("A result that is kept", "bytes"),
}
