"""The rounds of a run: each contender runs once a round, so that noise affects all alike."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Self

from attrs import define, evolve, frozen

from benchmarks import machine
from benchmarks.children import Child
from benchmarks.contenders import Contender
from benchmarks.scenes import Point, Scene
from benchmarks.servers import Servers

Sample = dict[str, Any]


@frozen
class Plan:
    """The extent of a run.

    Attributes:
        repeats: the number of samples of each contender at each point.
        patience: seconds after which no further sample of a contender is taken at a point.
        max_ids: the maximum number of ids to request.
        quick: whether to run only the quick points of each scene.
        first: whether clients and servers have real-time priority.
    """

    repeats: int
    patience: float
    max_ids: int
    quick: bool
    first: bool = False

    def count_ids(self, point: Point, contender: Contender) -> int:
        """Return the number of ids to request with a contender."""
        return min(point.n, contender.sufficient_ids or point.n, self.max_ids)


@define
class Runner:
    """Run scenes with servers, interpreters and a plan."""

    servers: Servers
    pythons: dict[str, str]
    plan: Plan

    def run_scene(self, scene: Scene, contenders: Sequence[Contender]) -> Iterator[Sample]:
        """Measure the contenders of a scene; yield each sample as soon as it is taken."""
        contenders = [each for each in contenders if each.name in scene.contenders]
        for point in scene.select_points(quick=self.plan.quick):
            for sample in self._run_rounds(scene, point, contenders):
                yield {"scene": scene.name, "point": point.label, **sample}

    def _run_rounds(
        self, scene: Scene, point: Point, contenders: Sequence[Contender]
    ) -> Iterator[Sample]:
        present = [each for each in contenders if each.supports(point)]
        spent = dict.fromkeys((each.name for each in present), 0.0)
        with ExitStack() as stack:
            children: dict[str, Child] = {}
            for number in range(self.plan.repeats):
                for contender in _rotate(present, number):
                    if spent[contender.name] > self.plan.patience:
                        continue
                    began = time.monotonic()
                    if contender.name not in children or scene.fresh:
                        child = stack.enter_context(self._start_child(contender, point))
                        children[contender.name] = child
                    sample = self._take_sample(children[contender.name], point)
                    if scene.fresh:
                        children[contender.name].close()
                    # A contender that has failed would fail again, so take no further sample.
                    patience = self.plan.patience if "error" in sample else 0.0
                    spent[contender.name] += time.monotonic() - began + patience
                    yield {"contender": contender.name, **sample}

    def _start_child(self, contender: Contender, point: Point) -> Child:
        variables = {"SSL_CERT_FILE": str(self.servers.cafile)} if point.server.tls else {}
        return Child(contender, self.pythons, variables, first=self.plan.first)

    def _take_sample(self, child: Child, point: Point) -> Sample:
        server = self.servers.get(point.server)
        point = evolve(point, n=self.plan.count_ids(point, child.contender))
        job = point.make_job(server.url, str(self.servers.cafile))
        with _CpuMonitor(server.pid, child.pid) as monitor:
            figures = child.run_job(job)
        return _round_figures(figures | monitor.read_shares() | {"load": machine.read_load()})


class _CpuMonitor:
    """Measure a server's CPU time, and the time that server and client waited for their cores."""

    def __init__(self, server: int, client: int) -> None:
        self._pids = (server, client)
        self._before = self._after = self._read()

    def __enter__(self) -> Self:
        self._before = self._read()
        return self

    def __exit__(self, *_: object) -> None:
        self._after = self._read()

    def _read(self) -> tuple[float | None, ...]:
        server, _ = self._pids
        waited = [machine.read_waiting_seconds(pid) for pid in self._pids]
        return time.monotonic(), machine.read_cpu_seconds(server), *waited

    def read_shares(self) -> dict[str, float]:
        seconds, cpu, *waited = (
            0.0 if before is None or after is None else after - before
            for before, after in zip(self._before, self._after, strict=True)
        )
        return {"server_cpu": cpu, "waited": sum(waited) / seconds}


def _rotate(contenders: Sequence[Contender], number: int) -> Iterator[Contender]:
    """Yield the contenders, beginning with another one in each round."""
    for offset in range(len(contenders)):
        yield contenders[(number + offset) % len(contenders)]


def _round_figures(figures: Mapping[str, Any]) -> Sample:
    """Round floats to six significant digits."""
    return {
        name: float(f"{value:.6g}") if isinstance(value, float) else value
        for name, value in figures.items()
    }
