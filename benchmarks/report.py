"""The tables that a run prints."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from attrs import frozen

from benchmarks.results import (
    Figure,
    Measure,
    Results,
    cpu_per_request,
    kept_waiting,
    rate,
    server_share,
    table,
)
from benchmarks.rounds import Sample
from benchmarks.scenes import DELAY, SCENES

BASELINE = "canfar"
# Nothing is lost by most: a ratio would tell nothing.
_UNCOMPARED = {"storm"}


@frozen
class Column:
    """One of the figures that a scene's table shows."""

    title: str
    measure: Measure
    show: Callable[[float], str]
    more_is_better: bool = False
    by_clock: bool = False

    def figure(self, results: Results, scene: str, point: str, contender: str) -> Figure | None:
        """Give what stands in this column for a contender."""
        return results.figure(scene, point, contender, self.measure, by_clock=self.by_clock)

    def times_better(self, figure: float, than: float) -> float:
        """Tell how many times better a figure is than another."""
        better, worse = (figure, than) if self.more_is_better else (than, figure)
        return better / worse if worse else math.inf


def _whole(value: float) -> str:
    return f"{value:,.0f}".replace(",", " ")


def _tenths(value: float) -> str:
    return f"{value:.1f}"


def _of(name: str, factor: float = 1.0) -> Measure:
    return lambda sample: factor * sample[name] if name in sample else None


def _each(name: str, factor: float = 1.0, of: str = "requests") -> Measure:
    return lambda sample: factor * sample[name] / sample[of] if name in sample else None


def _recovered(sample: Sample) -> float | None:
    """Give the throughput after a storm, in per cent of that before."""
    return 100 * sample["before"] / sample["wall"] if "before" in sample else None


_CPU = Column("CPU µs/request", cpu_per_request, _tenths)
_RATE = Column("requests/s", rate, _whole, more_is_better=True, by_clock=True)
_SERVER = Column("server's core %", server_share, _whole, by_clock=True)
_WAITED = Column("others had the cores %", kept_waiting, _whole, by_clock=True)
_USUAL = (_CPU, _RATE, _SERVER, _WAITED)
_SECONDS = (
    Column("ms", _of("seconds", 1e3), _tenths, by_clock=True),
    Column("worst ms", _of("worst", 1e3), _tenths, by_clock=True),
    _WAITED,
)
_MEGABYTES = Column("peak MB", _of("peak", 1e-6), _tenths)

_COLUMNS = {
    "storm": (
        Column(
            "throughput after, % of before", _recovered, _whole, more_is_better=True, by_clock=True
        ),
        Column("slots lost", _of("lost"), _whole),
        Column("failed of 300", _of("failed"), _whole),
    ),
    "cancel": _SECONDS,
    "beside": _SECONDS,
    "pending": (Column("bytes/id", _each("kept"), _whole),),
    "collected": (Column("bytes/id", _each("kept"), _whole), _MEGABYTES),
    "streamed": (_MEGABYTES, Column("whole MB", _of("whole", 1e-6), _tenths)),
    "calls": (Column("wall µs/id", _each("wall", 1e6), _tenths, by_clock=True), _CPU, _WAITED),
    "waiting": (Column("requests/session", _each("requests", of="sessions"), "{:.3f}".format),),
    "turns": (Column("longest CPU ms", _of("longest", 1e3), _tenths),),
    "import": (
        Column("CPU ms", _of("cpu", 1e3), _tenths),
        Column("wall ms", _of("wall", 1e3), _tenths, by_clock=True),
    ),
}


def _share_of_ideal(concurrency: int) -> Measure:
    def measure(sample: Sample) -> float | None:
        told = rate(sample)
        return None if told is None else 100 * told * DELAY / concurrency

    return measure


def columns(scene: str, point: str) -> tuple[Column, ...]:
    """List what the table of a point shows."""
    if scene == "latency":
        ideal = _share_of_ideal(int(point.removeprefix("c=")))
        share = Column("share of ideal %", ideal, _tenths, more_is_better=True, by_clock=True)
        return (share, *_USUAL)
    return _COLUMNS.get(scene, _USUAL)


def tables(results: Results, scene: str) -> Iterator[str]:
    """Draw the tables of a scene, one for each point."""
    yield f"## {scene}: {SCENES[scene].title}"
    for point in results.points(scene):
        yield f"{point}\n\n{_table(results, scene, point)}"


def _table(results: Results, scene: str, point: str) -> str:
    shown = columns(scene, point)
    base = None
    if scene not in _UNCOMPARED:
        base = shown[0].figure(results, scene, point, BASELINE)
    compared = () if base is None else (f"times better than {BASELINE}",)
    head = ["contender", *(column.title for column in shown), "spread %", "samples", *compared]
    rows = []
    for contender in results.contenders(scene):
        figures = [column.figure(results, scene, point, contender) for column in shown]
        first = figures[0]
        if first is None:
            error = results.error(scene, point, contender)
            if error is not None:
                rows.append([contender, f"- {error}"[:60], *[""] * (len(head) - 2)])
            continue
        cells = [
            "" if figure is None else column.show(figure.median)
            for figure, column in zip(figures, shown, strict=True)
        ]
        count = len(results.valid(scene, point, contender))
        row = [contender, *cells, f"{100 * first.spread:.0f}", str(count)]
        if base is not None:
            row.append(f"{shown[0].times_better(first.median, base.median):.2f}")
        rows.append(row)
    return table(head, rows)
