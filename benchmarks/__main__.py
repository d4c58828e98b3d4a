"""The command line of the benchmarks."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Collection, Iterable
from pathlib import Path

from attrs import evolve

from benchmarks import machine, report
from benchmarks.children import Child
from benchmarks.contenders import CONTENDERS, Contender, available, find_pythons
from benchmarks.document import fill
from benchmarks.goals import goals_table
from benchmarks.plots import draw
from benchmarks.results import Results, read
from benchmarks.rounds import Plan, Stage
from benchmarks.scenes import SCENES, Scene
from benchmarks.servers import open_servers

WHOLE = Plan(repeats=7, patience=80.0, most_ids=10**6, quick=False)
QUICK = Plan(repeats=3, patience=1.0, most_ids=1000, quick=True)


def main() -> None:
    """Measure what the command line names, and print and write the results."""
    options = _options()
    # However this ends, the servers are to end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if options.read is not None:
        _show(read(options.read), options)
        return

    pythons = find_pythons()
    present = [c for c in available(pythons) if c.name in options.contenders]
    plan = QUICK if options.quick else WHOLE
    plan = evolve(
        plan,
        repeats=options.repeats or plan.repeats,
        patience=options.patience or plan.patience,
        first=options.first,
    )
    earlier = read(options.output) if options.add else Results({})
    results = Results(_environment(present, pythons) | {"first": options.first})
    with open_servers(first=options.first) as servers:
        stage = Stage(servers, pythons, plan)
        for name in options.scenes:
            for sample in stage.play(_chosen(SCENES[name], options.points), present):
                results.samples.append(sample)
                _tell(".")
            _tell("\n")
            print(*report.tables(results, name), sep="\n\n", end="\n\n", flush=True)  # noqa: T201
            whole = results.added_to(earlier) if options.add else results
            whole.write(options.output)
    print("## goals", goals_table(whole), sep="\n\n")  # noqa: T201
    _publish(whole, options)
    _tell(f"All samples are in {options.output}\n")


def _chosen(scene: Scene, labels: Collection[str]) -> Scene:
    """Leave some of a scene's points, if any were named."""
    points = tuple(point for point in scene.points if not labels or point.label in labels)
    return evolve(scene, points=points)


def _show(results: Results, options: argparse.Namespace) -> None:
    """Print and draw the results of an earlier run."""
    for name in SCENES:
        if results.points(name):
            print(*report.tables(results, name), sep="\n\n", end="\n\n")  # noqa: T201
    print("## goals", goals_table(results), sep="\n\n")  # noqa: T201
    _publish(results, options)


def _publish(results: Results, options: argparse.Namespace) -> None:
    """Draw pictures, and put tables into a page, if that was asked for."""
    for path in draw(results, options.plots) if options.plots else ():
        _tell(f"{path}\n")
    if options.page:
        page = fill(options.page.read_text(encoding="utf-8"), results)
        options.page.write_text(page, encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nox -s bench --", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a look that takes two minutes")
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=list(SCENES))
    parser.add_argument("--points", nargs="+", default=[], help="some of the scenes' points only")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--repeats", type=int, help="samples of each contender at each point")
    parser.add_argument("--patience", type=float, help="seconds for each of them, more or less")
    parser.add_argument("--first", action="store_true", help="go before all else that runs here")
    parser.add_argument("--output", type=Path, default=Path("benchmarks.json"), help="samples")
    parser.add_argument("--add", action="store_true", help="keep what the output has of others")
    parser.add_argument("--plots", type=Path, help="a folder for pictures")
    parser.add_argument("--page", type=Path, help="a page of documentation to put tables into")
    parser.add_argument("--read", type=Path, help="show an earlier run's output, measure nothing")
    return parser.parse_args()


def _environment(contenders: Iterable[Contender], pythons: dict[str, str]) -> dict[str, object]:
    """Describe the machine and each environment."""
    told = {}
    for contender in contenders:
        if contender.environment not in told:
            with Child(contender, pythons, {}) as child:
                told[contender.environment] = child.ask({"scene": "about"}, 60)
    now = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return {"when": now, **machine.describe(), "environments": told}


def _tell(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


if __name__ == "__main__":
    main()
