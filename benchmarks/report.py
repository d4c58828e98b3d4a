"""The tables that a run prints."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from attrs import frozen

from benchmarks.results import (
    Figure,
    Measure,
    Results,
    compute_cpu_per_request,
    compute_rate,
    compute_server_share,
    compute_waiting_share,
    draw_table,
)
from benchmarks.rounds import Sample
from benchmarks.scenes import DELAY, SCENES

BASELINE = "canfar"
# Most contenders lose no slot, so that a ratio would be meaningless.
_UNCOMPARED = {"storm"}


@frozen
class Column:
    """One column of a scene's table."""

    title: str
    measure: Measure
    show: Callable[[float], str]
    more_is_better: bool = False
    by_clock: bool = False

    def figure(self, results: Results, scene: str, point: str, contender: str) -> Figure | None:
        """Return the figure of a contender in this column."""
        return results.figure(scene, point, contender, self.measure, by_clock=self.by_clock)

    def times_better(self, figure: float, than: float) -> float:
        """Return the ratio of two figures; above 1 if *figure* is better than *than*."""
        better, worse = (figure, than) if self.more_is_better else (than, figure)
        return better / worse if worse else math.inf


def _format_whole(value: float) -> str:
    return f"{value:,.0f}".replace(",", " ")


def _format_tenths(value: float) -> str:
    return f"{value:.1f}"


def _read(name: str, factor: float = 1.0) -> Measure:
    return lambda sample: factor * sample[name] if name in sample else None


def _read_each(name: str, factor: float = 1.0, of: str = "requests") -> Measure:
    return lambda sample: factor * sample[name] / sample[of] if name in sample else None


def _compute_recovery(sample: Sample) -> float | None:
    """Return the throughput after a storm, in per cent of the throughput before."""
    return 100 * sample["before"] / sample["wall"] if "before" in sample else None


_CPU = Column("CPU µs/request", compute_cpu_per_request, _format_tenths)
_RATE = Column("requests/s", compute_rate, _format_whole, more_is_better=True, by_clock=True)
_SERVER = Column("server's core %", compute_server_share, _format_whole, by_clock=True)
_WAITED = Column("others had the cores %", compute_waiting_share, _format_whole, by_clock=True)
_USUAL = (_CPU, _RATE, _SERVER, _WAITED)
_SECONDS = (
    Column("ms", _read("seconds", 1e3), _format_tenths, by_clock=True),
    Column("worst ms", _read("worst", 1e3), _format_tenths, by_clock=True),
    _WAITED,
)
_MEGABYTES = Column("peak MB", _read("peak", 1e-6), _format_tenths)

_COLUMNS = {
    "storm": (
        Column(
            "throughput after, % of before",
            _compute_recovery,
            _format_whole,
            more_is_better=True,
            by_clock=True,
        ),
        Column("slots lost", _read("lost"), _format_whole),
        Column("failed of 300", _read("failed"), _format_whole),
    ),
    "cancel": _SECONDS,
    "beside": _SECONDS,
    "pending": (Column("bytes/id", _read_each("kept"), _format_whole),),
    "collected": (Column("bytes/id", _read_each("kept"), _format_whole), _MEGABYTES),
    "streamed": (_MEGABYTES, Column("whole MB", _read("whole", 1e-6), _format_tenths)),
    "calls": (
        Column("wall µs/id", _read_each("wall", 1e6), _format_tenths, by_clock=True),
        _CPU,
        _WAITED,
    ),
    "waiting": (
        Column("requests/session", _read_each("requests", of="sessions"), "{:.3f}".format),
    ),
    "turns": (Column("longest CPU ms", _read("longest", 1e3), _format_tenths),),
    "import": (
        Column("CPU ms", _read("cpu", 1e3), _format_tenths),
        Column("wall ms", _read("wall", 1e3), _format_tenths, by_clock=True),
    ),
}


def _make_share_of_ideal(concurrency: int) -> Measure:
    def measure(sample: Sample) -> float | None:
        per_second = compute_rate(sample)
        return None if per_second is None else 100 * per_second * DELAY / concurrency

    return measure


def list_columns(scene: str, point: str) -> tuple[Column, ...]:
    """Return the columns of the table of a point."""
    if scene == "latency":
        ideal = _make_share_of_ideal(int(point.removeprefix("c=")))
        share = Column(
            "share of ideal %", ideal, _format_tenths, more_is_better=True, by_clock=True
        )
        return (share, *_USUAL)
    return _COLUMNS.get(scene, _USUAL)


def draw_tables(results: Results, scene: str) -> Iterator[str]:
    """Draw the tables of a scene, one for each point."""
    yield f"## {scene}: {SCENES[scene].title}"
    for point in results.points(scene):
        yield f"{point}\n\n{_draw_table(results, scene, point)}"


def _draw_table(results: Results, scene: str, point: str) -> str:
    shown_columns = list_columns(scene, point)
    base = None
    if scene not in _UNCOMPARED:
        base = shown_columns[0].figure(results, scene, point, BASELINE)
    compared = () if base is None else (f"times better than {BASELINE}",)
    head = [
        "contender",
        *(column.title for column in shown_columns),
        "spread %",
        "samples",
        *compared,
    ]
    rows = []
    for contender in results.contenders(scene):
        figures = [column.figure(results, scene, point, contender) for column in shown_columns]
        first = figures[0]
        if first is None:
            error = results.error(scene, point, contender)
            if error is not None:
                rows.append([contender, f"- {error}"[:60], *[""] * (len(head) - 2)])
            continue
        cells = [
            "" if figure is None else column.show(figure.median)
            for figure, column in zip(figures, shown_columns, strict=True)
        ]
        count = len(results.valid(scene, point, contender))
        row = [contender, *cells, f"{100 * first.spread:.0f}", str(count)]
        if base is not None:
            row.append(f"{shown_columns[0].times_better(first.median, base.median):.2f}")
        rows.append(row)
    return draw_table(head, rows)
