"""What came of a run: samples, their medians, and tables of them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from attrs import define, field, frozen

from benchmarks.rounds import Sample
from benchmarks.scenes import SCENES

Measure = Callable[[Sample], float | None]


@frozen
class Figure:
    """The samples of one contender at one point, in one unit."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return median(self.values)

    @property
    def spread(self) -> float:
        """How far the quarter above and the quarter below are apart, as a share of the median."""
        if len(self.values) < 2 or self.median == 0:
            return 0.0
        ordered = sorted(self.values)
        quarter = len(ordered) // 4
        return (ordered[-1 - quarter] - ordered[quarter]) / abs(self.median)


@define
class Results:
    """All that was measured, and on what."""

    environment: dict[str, Any]
    samples: list[Sample] = field(factory=list)

    def points(self, scene: str) -> list[str]:
        """List the labels of the points that were measured in a scene, as it has them."""
        measured = {sample["point"] for sample in self._of(scene)}
        return [point.label for point in SCENES[scene].points if point.label in measured]

    def contenders(self, scene: str) -> list[str]:
        """List who was measured in a scene, as it names them."""
        measured = {sample["contender"] for sample in self._of(scene)}
        return [name for name in SCENES[scene].contenders if name in measured]

    def figure(
        self, scene: str, point: str, contender: str, measure: Measure, *, by_clock: bool = False
    ) -> Figure | None:
        """Give the figures of a contender at a point; None if there are none.

        Other programs on the same cores do not change what is counted in CPU time, but all that is
        told *by_clock*. For that, only the third of the samples counts that was kept waiting least.
        """
        samples = self.valid(scene, point, contender)
        if by_clock:
            samples.sort(key=lambda sample: float(sample.get("waited", 0)))
            del samples[math.ceil(len(samples) / 3) :]
        values = tuple(value for value in map(measure, samples) if value is not None)
        return Figure(values) if values else None

    def valid(self, scene: str, point: str, contender: str) -> list[Sample]:
        """List the samples of a contender at a point that are no errors."""
        return [
            sample
            for sample in self._of(scene)
            if sample["point"] == point and sample["contender"] == contender
            if "error" not in sample
        ]

    def error(self, scene: str, point: str, contender: str) -> str | None:
        """Tell why a contender has no figures at a point."""
        for sample in self._of(scene):
            if sample["point"] == point and sample["contender"] == contender and "error" in sample:
                return str(sample["error"])
        return None

    def _of(self, scene: str) -> Iterable[Sample]:
        return (sample for sample in self.samples if sample["scene"] == scene)

    def added_to(self, earlier: Results) -> Results:
        """Give these samples, and those of an earlier run that these do not replace.

        Raises:
            ValueError: that was on another machine.
        """
        for name in ("cpu", "cores", "python"):
            if self.environment.get(name) != earlier.environment.get(name):
                raise ValueError(f"the earlier run had another {name}")
        replaced = {_what(sample) for sample in self.samples}
        kept = [sample for sample in earlier.samples if _what(sample) not in replaced]
        environments = {
            **earlier.environment.get("environments", {}),
            **self.environment.get("environments", {}),
        }
        return Results({**self.environment, "environments": environments}, kept + self.samples)

    def write(self, path: Path) -> None:
        """Write everything as JSON, a sample a line."""
        samples = ",\n".join(json.dumps(sample) for sample in self.samples)
        text = f'{{"environment": {json.dumps(self.environment)},\n"samples": [\n{samples}\n]}}\n'
        path.write_text(text, encoding="utf-8")


def _what(sample: Sample) -> tuple[str, str, str]:
    return sample["scene"], sample["point"], sample["contender"]


def read(path: Path) -> Results:
    """Read what `Results.write` wrote."""
    told = json.loads(path.read_text(encoding="utf-8"))
    return Results(told["environment"], told["samples"])


def cpu_per_request(sample: Sample) -> float | None:
    """Give the client's CPU time for one request, in microseconds."""
    return 1e6 * sample["cpu"] / sample["requests"] if "cpu" in sample else None


def rate(sample: Sample) -> float | None:
    """Give the requests per second of wall time."""
    return sample["requests"] / sample["wall"] if sample.get("requests") else None


def server_share(sample: Sample) -> float | None:
    """Give the share of its core that the server used, in per cent."""
    return 100 * sample["server_cpu"] / sample["wall"] if "server_cpu" in sample else None


def kept_waiting(sample: Sample) -> float | None:
    """Give the share of time that others had the cores of client and server, in per cent."""
    return 100 * sample["waited"] if "waited" in sample else None


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Draw a table in the way of Markdown, its columns aligned."""
    lines = [list(head), *([*row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    )
