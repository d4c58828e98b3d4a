"""The command line of the benchmarks."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from attrs import evolve

from benchmarks import machine, report
from benchmarks.children import Child
from benchmarks.contenders import CONTENDERS, Contender, available, find_pythons
from benchmarks.results import Results
from benchmarks.rounds import Plan, Stage
from benchmarks.scenes import SCENES
from benchmarks.servers import open_servers

WHOLE = Plan(repeats=7, patience=80.0, most_ids=10**6, quick=False)
QUICK = Plan(repeats=3, patience=1.0, most_ids=1000, quick=True)


def main() -> None:
    """Measure what the command line names, and print and write the results."""
    options = _options()
    pythons = find_pythons()
    present = [c for c in available(pythons) if c.name in options.contenders]
    plan = QUICK if options.quick else WHOLE
    if options.repeats:
        plan = evolve(plan, repeats=options.repeats)

    results = Results(_environment(present, pythons))
    with open_servers() as servers:
        stage = Stage(servers, pythons, plan)
        for name in options.scenes:
            scene = SCENES[name]
            named = [contender for contender in present if contender.name in scene.contenders]
            for sample in stage.play(scene, named):
                results.samples.append(sample)
                _tell(".")
            _tell("\n")
            print(*report.tables(results, name), sep="\n\n", end="\n\n", flush=True)  # noqa: T201
            results.write(options.output)
    _tell(f"All samples are in {options.output}\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nox -s bench --", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a look that takes two minutes")
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=list(SCENES))
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--repeats", type=int, help="samples of each contender at each point")
    parser.add_argument("--output", type=Path, default=Path("benchmarks.json"))
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
