"""The performance goals, and the figures of a run beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from attrs import frozen

from benchmarks.report import list_columns
from benchmarks.results import Results, compute_cpu_per_request, draw_table

Reached = Callable[[Results, str], float | None]
Measurement = tuple[str, str, str | None]
"""A scene, a point, and a contender; None for the contender of the goal."""

BACKENDS = ("kaleden asyncio", "kaleden uvloop", "kaleden trio")


@frozen
class Goal:
    """A performance goal, with a required value and a desired value.

    Attributes:
        text: the quantity and its unit.
        must: the required value: a minimum, or a maximum if less is better.
        aim: the desired value.
        reached: returns the figure of a contender; None if there is none.
        show: formats a figure.
        contenders: the contenders that the goal applies to.
    """

    text: str
    must: str
    aim: str
    reached: Reached
    show: Callable[[float], str] = "{:.1f}".format
    contenders: tuple[str, ...] = BACKENDS


def _get_first_figure(results: Results, scene: str, point: str, contender: str) -> float | None:
    """Return the figure in the first column of the scene's table."""
    figure = list_columns(scene, point)[0].figure(results, scene, point, contender)
    return None if figure is None else figure.median


def _get_cpu(results: Results, scene: str, point: str, contender: str) -> float | None:
    figure = results.figure(scene, point, contender, compute_cpu_per_request)
    return None if figure is None else figure.median


def _divide(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None


def _read_figure(scene: str, point: str, factor: float = 1.0) -> Reached:
    def reached(results: Results, contender: str) -> float | None:
        figure = _get_first_figure(results, scene, point, contender)
        return None if figure is None else factor * figure

    return reached


def _compare_cpu(above: Measurement, below: Measurement) -> Reached:
    """Divide the CPU time of one measurement by that of another."""

    def reached(results: Results, contender: str) -> float | None:
        return _divide(
            _get_cpu_at(results, above, contender), _get_cpu_at(results, below, contender)
        )

    return reached


def _get_cpu_at(results: Results, measurement: Measurement, contender: str) -> float | None:
    scene, point, other = measurement
    return _get_cpu(results, scene, point, other or contender)


def _compare_below(other: str, scene: str, point: str) -> Reached:
    """Divide the CPU time of another contender by that of the goal's contender."""
    return _compare_cpu((scene, point, other), (scene, point, None))


def _compare_above(other: str, scene: str, point: str) -> Reached:
    """Divide the CPU time of the goal's contender by that of another contender."""
    return _compare_cpu((scene, point, None), (scene, point, other))


def _compare_points(scene: str, point: str, other: str) -> Reached:
    """Divide the CPU time at one point by that at another point."""
    return _compare_cpu((scene, point, None), (scene, other, None))


def _read_seconds(results: Results, contender: str) -> float | None:
    figure = results.figure(
        "growth", "N=1000000", contender, lambda sample: sample["wall"], by_clock=True
    )
    return None if figure is None else figure.median


_FACADE = ("kaleden Session",)
_IMPORT = ("import kaleden", "import httpx")
GOALS = (
    Goal("10 000 ids, c=32: CPU µs per id", "≤ 50", "", _read_figure("growth", "N=10000")),
    Goal(
        "10 000 ids, c=32: times canfar's CPU",
        "≥ 22 (trio 25)",
        "40",
        _compare_below("canfar", "growth", "N=10000"),
    ),
    Goal(
        "1 000 ids: times canfar's CPU", "≥ 12", "20", _compare_below("canfar", "growth", "N=1000")
    ),
    Goal(
        "30 000 ids: times canfar's CPU",
        "≥ 35",
        "60",
        _compare_below("canfar", "growth", "N=30000"),
    ),
    Goal(
        "100 000 ids: times canfar's CPU",
        "≥ 80",
        "120",
        _compare_below("canfar", "growth", "N=100000"),
    ),
    Goal(
        "TLS, 10 000 ids: times canfar's CPU",
        "≥ 18",
        "28",
        _compare_below("canfar", "growth-tls", "N=10000"),
    ),
    Goal("CPU over that of wrk, in C", "≤ 10", "5", _compare_above("wrk", "http", "c=32")),
    Goal(
        "CPU over that of an epoll loop",
        "≤ 2.8",
        "1.5",
        _compare_above("epoll loop", "http", "c=32"),
    ),
    Goal(
        "CPU per id at c=1000 over c=32", "≤ 1.6", "1.2", _compare_points("http", "c=1000", "c=32")
    ),
    Goal("1 000 000 ids: seconds", "≤ 60", "", _read_seconds),
    Goal(
        "CPU per id of 1 000 000 over 10 000",
        "≤ 1.5",
        "1.15",
        _compare_points("growth", "N=1000000", "N=10000"),
    ),
    Goal("bytes for each id that waits", "≤ 200", "60", _read_figure("pending", "N=30000")),
    Goal("50 ms server, c=32: % of ideal", "≥ 95", "98", _read_figure("latency", "c=32")),
    Goal("50 ms server, c=100: % of ideal", "≥ 95", "98", _read_figure("latency", "c=100")),
    Goal("50 ms server, c=500: % of ideal", "≥ 85", "92", _read_figure("latency", "c=500")),
    Goal("50 ms server, c=1000: % of ideal", "≥ 70", "85", _read_figure("latency", "c=1000")),
    Goal(
        "warm blocking call, 1 id: ms",
        "≤ 0.4",
        "0.25",
        _read_figure("calls", "N=1", 1e-3),
        "{:.2f}".format,
        _FACADE,
    ),
    Goal(
        "warm blocking call, 100 ids: µs per id",
        "≤ 45",
        "30",
        _read_figure("calls", "N=100"),
        contenders=_FACADE,
    ),
    Goal(
        "import, CPU ms (beside it: httpx)",
        "≤ 150",
        "below httpx",
        _read_figure("import", "cold"),
        contenders=_IMPORT,
    ),
)


def draw_goals(results: Results) -> str:
    """Draw the table of goals, with the figures on asyncio, uvloop and trio."""
    head = ["goal", "must", "aim", "asyncio", "uvloop", "trio"]
    return draw_table(head, _make_rows(results))


def _make_rows(results: Results) -> Iterator[list[str]]:
    for goal in GOALS:
        figures = [goal.reached(results, contender) for contender in goal.contenders]
        cells = ["-" if figure is None else goal.show(figure) for figure in figures]
        yield [goal.text, goal.must, goal.aim, *cells, *[""] * (3 - len(cells))]
