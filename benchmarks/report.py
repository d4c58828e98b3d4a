"""The tables that a run prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from attrs import frozen

from benchmarks.results import (
    Figure,
    Measure,
    Results,
    cpu_per_request,
    rate,
    server_share,
    table,
)
from benchmarks.scenes import DELAY, SCENES

BASELINE = "canfar"


@frozen
class Column:
    """One of the figures that a scene's table shows."""

    title: str
    measure: Measure
    show: Callable[[float], str]


def _count(value: float) -> str:
    return f"{value:,.0f}".replace(",", " ")


def _tenths(value: float) -> str:
    return f"{value:.1f}"


_CPU = Column("CPU µs/request", cpu_per_request, _tenths)
_RATE = Column("requests/s", rate, _count)
_SERVER = Column("server's core %", server_share, _count)
_USUAL = (_CPU, _RATE, _SERVER)


def _share_of_ideal(concurrency: int) -> Measure:
    def measure(sample: dict[str, float]) -> float | None:
        told = rate(sample)
        return None if told is None else 100 * told * DELAY / concurrency

    return measure


def columns(scene: str, point: str) -> tuple[Column, ...]:
    """List what the table of a point shows."""
    if scene == "latency":
        ideal = _share_of_ideal(int(point.removeprefix("c=")))
        return (Column("share of ideal %", ideal, _tenths), *_USUAL)
    return _USUAL


def tables(results: Results, scene: str) -> Iterator[str]:
    """Draw the tables of a scene, one for each point."""
    yield f"## {scene}: {SCENES[scene].title}"
    for point in results.points(scene):
        yield f"{point}\n\n{_table(results, scene, point)}"


def _table(results: Results, scene: str, point: str) -> str:
    shown = columns(scene, point)
    first = shown[0]
    base = results.figure(scene, point, BASELINE, first.measure)
    head = ["contender", *(column.title for column in shown), "spread %", "n", f"{BASELINE} / it"]
    rows = []
    for contender in results.contenders(scene):
        figures = [results.figure(scene, point, contender, c.measure) for c in shown]
        if figures[0] is None:
            error = results.error(scene, point, contender)
            rows.append([contender, f"- {error or ''}"[:60], *[""] * (len(head) - 2)])
            continue
        cells = [
            "" if figure is None else column.show(figure.median)
            for figure, column in zip(figures, shown, strict=True)
        ]
        ratio = _ratio(base, figures[0])
        spread = f"{100 * figures[0].spread:.0f}"
        rows.append([contender, *cells, spread, str(len(figures[0].values)), ratio])
    return table(head, rows)


def _ratio(base: Figure | None, figure: Figure) -> str:
    return "" if base is None or figure.median == 0 else f"{base.median / figure.median:.2f}"
