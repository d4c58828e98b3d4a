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
from benchmarks.contenders import CONTENDERS, Contender, find_pythons, list_available
from benchmarks.document import fill
from benchmarks.goals import draw_goals
from benchmarks.plots import draw
from benchmarks.results import Results, read
from benchmarks.rounds import Plan, Runner
from benchmarks.scenes import SCENES, Scene
from benchmarks.servers import open_servers

FULL = Plan(repeats=7, patience=80.0, max_ids=10**6, quick=False)
QUICK = Plan(repeats=3, patience=1.0, max_ids=1000, quick=True)


def main() -> None:
    """Run the scenes that the command line selects; print and write the results."""
    options = _parse_options()
    # Convert SIGTERM to an exception, so that the servers are stopped as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if options.read is not None:
        _show(read(options.read), options)
        return

    pythons = find_pythons()
    present = [c for c in list_available(pythons) if c.name in options.contenders]
    plan = QUICK if options.quick else FULL
    plan = evolve(
        plan,
        repeats=options.repeats or plan.repeats,
        patience=options.patience or plan.patience,
        first=options.first,
    )
    earlier = read(options.output) if options.add else Results({})
    results = Results(_describe_environment(present, pythons) | {"first": options.first})
    with open_servers(first=options.first) as servers:
        runner = Runner(servers, pythons, plan)
        for name in options.scenes:
            for sample in runner.run_scene(_select_points(SCENES[name], options.points), present):
                results.samples.append(sample)
                _log(".")
            _log("\n")
            print(*report.draw_tables(results, name), sep="\n\n", end="\n\n", flush=True)  # noqa: T201
            merged = results.merge_into(earlier) if options.add else results
            merged.write(options.output)
    print("## goals", draw_goals(merged), sep="\n\n")  # noqa: T201
    _publish(merged, options)
    _log(f"All samples are in {options.output}\n")


def _select_points(scene: Scene, labels: Collection[str]) -> Scene:
    """Keep only the points of a scene with these labels; keep all if there are no labels."""
    points = tuple(point for point in scene.points if not labels or point.label in labels)
    return evolve(scene, points=points)


def _show(results: Results, options: argparse.Namespace) -> None:
    """Print and draw the results of an earlier run."""
    for name in SCENES:
        if results.points(name):
            print(*report.draw_tables(results, name), sep="\n\n", end="\n\n")  # noqa: T201
    print("## goals", draw_goals(results), sep="\n\n")  # noqa: T201
    _publish(results, options)


def _publish(results: Results, options: argparse.Namespace) -> None:
    """Draw pictures and fill the tables of a page, if the options ask for them."""
    for path in draw(results, options.plots) if options.plots else ():
        _log(f"{path}\n")
    if options.page:
        page = fill(options.page.read_text(encoding="utf-8"), results)
        options.page.write_text(page, encoding="utf-8")


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nox -s bench --", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a short run of two minutes")
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=list(SCENES))
    parser.add_argument(
        "--points", nargs="+", default=[], help="run only these points of the scenes"
    )
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--repeats", type=int, help="samples of each contender at each point")
    parser.add_argument("--patience", type=float, help="approximate seconds for each of them")
    parser.add_argument("--first", action="store_true", help="run with real-time priority")
    parser.add_argument("--output", type=Path, default=Path("benchmarks.json"), help="samples")
    parser.add_argument("--add", action="store_true", help="keep other samples of the output")
    parser.add_argument("--plots", type=Path, help="folder to draw pictures into")
    parser.add_argument("--page", type=Path, help="page of documentation to fill with tables")
    parser.add_argument("--read", type=Path, help="show the output of an earlier run instead")
    return parser.parse_args()


def _describe_environment(
    contenders: Iterable[Contender], pythons: dict[str, str]
) -> dict[str, object]:
    """Describe the machine and each environment."""
    environments = {}
    for contender in contenders:
        if contender.environment not in environments:
            with Child(contender, pythons, {}) as child:
                environments[contender.environment] = child.run_job({"scene": "about"}, 60)
    now = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return {"when": now, **machine.describe(), "environments": environments}


def _log(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


if __name__ == "__main__":
    main()
