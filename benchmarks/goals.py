"""What was to be reached, and how far the figures of a run are from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from attrs import frozen

from benchmarks.report import columns
from benchmarks.results import Results, cpu_per_request, table

Reached = Callable[[Results, str], float | None]
Place = tuple[str, str, str | None]
"""A scene, a point, and a contender; None for the one whose goal it is."""

BACKENDS = ("kaleden asyncio", "kaleden uvloop", "kaleden trio")


@frozen
class Goal:
    """A goal that must be reached, and one that is aimed at.

    Attributes:
        text: what it is about.
        must: the least, or the most if less is better.
        aim: what would be better.
        reached: gives the figure of one of the ways to run kaleden.
        show: how figures are written.
        contenders: who it is about.
    """

    text: str
    must: str
    aim: str
    reached: Reached
    show: Callable[[float], str] = "{:.1f}".format
    contenders: tuple[str, ...] = BACKENDS


def _first(results: Results, scene: str, point: str, contender: str) -> float | None:
    """Give what the scene's table shows first."""
    figure = columns(scene, point)[0].figure(results, scene, point, contender)
    return None if figure is None else figure.median


def _cpu(results: Results, scene: str, point: str, contender: str) -> float | None:
    figure = results.figure(scene, point, contender, cpu_per_request)
    return None if figure is None else figure.median


def _ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None


def _figure(scene: str, point: str, factor: float = 1.0) -> Reached:
    def reached(results: Results, contender: str) -> float | None:
        told = _first(results, scene, point, contender)
        return None if told is None else factor * told

    return reached


def _compare(above: Place, below: Place) -> Reached:
    """Divide the CPU time at one place by that at another."""

    def reached(results: Results, contender: str) -> float | None:
        return _ratio(_cpu_at(results, above, contender), _cpu_at(results, below, contender))

    return reached


def _cpu_at(results: Results, place: Place, contender: str) -> float | None:
    scene, point, other = place
    return _cpu(results, scene, point, other or contender)


def _below(other: str, scene: str, point: str) -> Reached:
    """Compare the CPU time with that of another contender: how many times less it is."""
    return _compare((scene, point, other), (scene, point, None))


def _above(other: str, scene: str, point: str) -> Reached:
    """Compare the CPU time with that of another contender: how many times more it is."""
    return _compare((scene, point, None), (scene, point, other))


def _over(scene: str, point: str, other: str) -> Reached:
    """Compare the CPU time at a point with that at another."""
    return _compare((scene, point, None), (scene, other, None))


def _seconds(results: Results, contender: str) -> float | None:
    told = results.figure(
        "growth", "N=1000000", contender, lambda sample: sample["wall"], by_clock=True
    )
    return None if told is None else told.median


_FACADE = ("kaleden Session",)
_IMPORT = ("import kaleden", "import httpx")
GOALS = (
    Goal("10 000 ids, c=32: CPU µs per id", "≤ 50", "", _figure("growth", "N=10000")),
    Goal(
        "10 000 ids, c=32: times canfar's CPU",
        "≥ 22 (trio 25)",
        "40",
        _below("canfar", "growth", "N=10000"),
    ),
    Goal("1 000 ids: times canfar's CPU", "≥ 12", "20", _below("canfar", "growth", "N=1000")),
    Goal("30 000 ids: times canfar's CPU", "≥ 35", "60", _below("canfar", "growth", "N=30000")),
    Goal("100 000 ids: times canfar's CPU", "≥ 80", "120", _below("canfar", "growth", "N=100000")),
    Goal(
        "TLS, 10 000 ids: times canfar's CPU",
        "≥ 18",
        "28",
        _below("canfar", "growth-tls", "N=10000"),
    ),
    Goal("CPU over that of wrk, in C", "≤ 10", "5", _above("wrk", "http", "c=32")),
    Goal("CPU over that of an epoll loop", "≤ 2.8", "1.5", _above("epoll loop", "http", "c=32")),
    Goal("CPU per id at c=1000 over c=32", "≤ 1.6", "1.2", _over("http", "c=1000", "c=32")),
    Goal("1 000 000 ids: seconds", "≤ 60", "", _seconds),
    Goal(
        "CPU per id of 1 000 000 over 10 000",
        "≤ 1.5",
        "1.15",
        _over("growth", "N=1000000", "N=10000"),
    ),
    Goal("bytes for each id that waits", "≤ 200", "60", _figure("pending", "N=30000")),
    Goal("50 ms server, c=32: % of ideal", "≥ 95", "98", _figure("latency", "c=32")),
    Goal("50 ms server, c=100: % of ideal", "≥ 95", "98", _figure("latency", "c=100")),
    Goal("50 ms server, c=500: % of ideal", "≥ 85", "92", _figure("latency", "c=500")),
    Goal("50 ms server, c=1000: % of ideal", "≥ 70", "85", _figure("latency", "c=1000")),
    Goal(
        "warm blocking call, 1 id: ms",
        "≤ 0.4",
        "0.25",
        _figure("calls", "N=1", 1e-3),
        "{:.2f}".format,
        _FACADE,
    ),
    Goal(
        "warm blocking call, 100 ids: µs per id",
        "≤ 45",
        "30",
        _figure("calls", "N=100"),
        contenders=_FACADE,
    ),
    Goal(
        "import, CPU ms (beside it: httpx)",
        "≤ 150",
        "below httpx",
        _figure("import", "cold"),
        contenders=_IMPORT,
    ),
)


def goals_table(results: Results) -> str:
    """Draw the table of goals, with what was reached on asyncio, uvloop and trio."""
    head = ["goal", "must", "aim", "asyncio", "uvloop", "trio"]
    return table(head, _rows(results))


def _rows(results: Results) -> Iterator[list[str]]:
    for goal in GOALS:
        told = [goal.reached(results, contender) for contender in goal.contenders]
        cells = ["-" if figure is None else goal.show(figure) for figure in told]
        yield [goal.text, goal.must, goal.aim, *cells, *[""] * (3 - len(cells))]
