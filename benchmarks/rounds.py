"""The course of a run: rounds in which every contender has its turn, so that noise meets all."""

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
    """How thorough a run is.

    Attributes:
        repeats: samples of each contender at each point.
        patience: seconds after which a contender has no further turn at a point.
        most_ids: how many ids are asked for at most.
        quick: whether only a few points are shown.
        first: whether clients and servers go before all else that runs on this machine.
    """

    repeats: int
    patience: float
    most_ids: int
    quick: bool
    first: bool = False

    def ids(self, point: Point, contender: Contender) -> int:
        """Tell how many ids a contender is asked for."""
        return min(point.n, contender.enough or point.n, self.most_ids)


@define
class Stage:
    """What a run needs to measure anything."""

    servers: Servers
    pythons: dict[str, str]
    plan: Plan

    def play(self, scene: Scene, contenders: Sequence[Contender]) -> Iterator[Sample]:
        """Measure those of the contenders that a scene is for; yield each sample at once."""
        contenders = [each for each in contenders if each.name in scene.contenders]
        for point in scene.shown(quick=self.plan.quick):
            for sample in self._rounds(scene, point, contenders):
                yield {"scene": scene.name, "point": point.label, **sample}

    def _rounds(
        self, scene: Scene, point: Point, contenders: Sequence[Contender]
    ) -> Iterator[Sample]:
        present = [each for each in contenders if each.can(point)]
        spent = dict.fromkeys((each.name for each in present), 0.0)
        with ExitStack() as stack:
            children: dict[str, Child] = {}
            for number in range(self.plan.repeats):
                for contender in _rotated(present, number):
                    if spent[contender.name] > self.plan.patience:
                        continue
                    began = time.monotonic()
                    if contender.name not in children or scene.fresh:
                        child = stack.enter_context(self._child(contender, point))
                        children[contender.name] = child
                    sample = self._sample(children[contender.name], point)
                    if scene.fresh:
                        children[contender.name].close()
                    # What has failed would only fail again.
                    patience = self.plan.patience if "error" in sample else 0.0
                    spent[contender.name] += time.monotonic() - began + patience
                    yield {"contender": contender.name, **sample}

    def _child(self, contender: Contender, point: Point) -> Child:
        trusted = {"SSL_CERT_FILE": str(self.servers.cafile)} if point.server.tls else {}
        return Child(contender, self.pythons, trusted, first=self.plan.first)

    def _sample(self, child: Child, point: Point) -> Sample:
        server = self.servers.get(point.server)
        point = evolve(point, n=self.plan.ids(point, child.contender))
        order = point.order(server.url, str(self.servers.cafile))
        with _Watched(server.pid, child.pid) as watched:
            figures = child.ask(order)
        return _short(figures | watched.told() | {"load": machine.load()})


class _Watched:
    """Tells how much of its core a server used, and how far others had its and a client's cores."""

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
        waited = [machine.seconds_kept_waiting(pid) for pid in self._pids]
        return time.monotonic(), machine.cpu_seconds(server), *waited

    def told(self) -> dict[str, float]:
        seconds, cpu, *waited = (
            0.0 if before is None or after is None else after - before
            for before, after in zip(self._before, self._after, strict=True)
        )
        return {"server_cpu": cpu, "waited": sum(waited) / seconds}


def _rotated(contenders: Sequence[Contender], number: int) -> Iterator[Contender]:
    """Let another begin each round."""
    for offset in range(len(contenders)):
        yield contenders[(number + offset) % len(contenders)]


def _short(figures: Mapping[str, Any]) -> Sample:
    """Keep the digits that mean something."""
    return {
        name: float(f"{value:.6g}") if isinstance(value, float) else value
        for name, value in figures.items()
    }
