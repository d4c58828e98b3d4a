"""The results of a run: samples, medians and tables."""

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
        """The median of the values."""
        return median(self.values)

    @property
    def spread(self) -> float:
        """The distance between the quartiles, as a fraction of the median."""
        if len(self.values) < 2 or self.median == 0:
            return 0.0
        ordered = sorted(self.values)
        quarter = len(ordered) // 4
        return (ordered[-1 - quarter] - ordered[quarter]) / abs(self.median)


@define
class Results:
    """The samples of a run, and a description of its environment."""

    environment: dict[str, Any]
    samples: list[Sample] = field(factory=list)

    def points(self, scene: str) -> list[str]:
        """Return the labels of the measured points of a scene, in the order of the scene."""
        measured = {sample["point"] for sample in self._filter(scene)}
        return [point.label for point in SCENES[scene].points if point.label in measured]

    def contenders(self, scene: str) -> list[str]:
        """Return the measured contenders of a scene, in the order of the scene."""
        measured = {sample["contender"] for sample in self._filter(scene)}
        return [name for name in SCENES[scene].contenders if name in measured]

    def figure(
        self, scene: str, point: str, contender: str, measure: Measure, *, by_clock: bool = False
    ) -> Figure | None:
        """Return the figures of a contender at a point; None if there are none.

        Other programs on the same cores lengthen wall time, but not CPU time. Therefore, a measure
        of wall time (*by_clock*) uses only the third of the samples that waited least for a core.
        """
        samples = self.valid(scene, point, contender)
        if by_clock:
            samples.sort(key=lambda sample: float(sample.get("waited", 0)))
            del samples[math.ceil(len(samples) / 3) :]
        values = tuple(value for value in map(measure, samples) if value is not None)
        return Figure(values) if values else None

    def valid(self, scene: str, point: str, contender: str) -> list[Sample]:
        """Return the samples of a contender at a point, without errors."""
        return [
            sample
            for sample in self._filter(scene)
            if sample["point"] == point and sample["contender"] == contender
            if "error" not in sample
        ]

    def error(self, scene: str, point: str, contender: str) -> str | None:
        """Return the error of a contender at a point; None if there was none."""
        for sample in self._filter(scene):
            if sample["point"] == point and sample["contender"] == contender and "error" in sample:
                return str(sample["error"])
        return None

    def _filter(self, scene: str) -> Iterable[Sample]:
        return (sample for sample in self.samples if sample["scene"] == scene)

    def merge_into(self, earlier: Results) -> Results:
        """Return these samples, and those of an earlier run that they do not replace.

        Raises:
            ValueError: the earlier run was on another machine.
        """
        for name in ("cpu", "cores", "python"):
            if self.environment.get(name) != earlier.environment.get(name):
                raise ValueError(f"the earlier run had another {name}")
        replaced = {_get_key(sample) for sample in self.samples}
        kept = [sample for sample in earlier.samples if _get_key(sample) not in replaced]
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


def _get_key(sample: Sample) -> tuple[str, str, str]:
    return sample["scene"], sample["point"], sample["contender"]


def read(path: Path) -> Results:
    """Read a file that `Results.write` has written."""
    loaded = json.loads(path.read_text(encoding="utf-8"))
    return Results(loaded["environment"], loaded["samples"])


def compute_cpu_per_request(sample: Sample) -> float | None:
    """Return the client's CPU time for one request, in microseconds."""
    return 1e6 * sample["cpu"] / sample["requests"] if "cpu" in sample else None


def compute_rate(sample: Sample) -> float | None:
    """Return the requests per second of wall time."""
    return sample["requests"] / sample["wall"] if sample.get("requests") else None


def compute_server_share(sample: Sample) -> float | None:
    """Return the share of its core that the server used, in per cent."""
    return 100 * sample["server_cpu"] / sample["wall"] if "server_cpu" in sample else None


def compute_waiting_share(sample: Sample) -> float | None:
    """Return the share of time that client and server waited for their cores, in per cent."""
    return 100 * sample["waited"] if "waited" in sample else None


def draw_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Draw a Markdown table with aligned columns."""
    lines = [list(head), *([*row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    )
