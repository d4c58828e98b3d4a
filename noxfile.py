"""Sessions to test, check and measure a checkout: ``nox -l`` lists them, ``nox -s tests`` tests.

The sessions with the tag ``ci`` must pass before a change lands.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nox
import nox.registry

PROJECT = nox.project.load_toml("pyproject.toml")
PEERS = ("canfar", "skaha")
LOWEST_PYTHON = PROJECT["project"]["requires-python"].removeprefix(">=")
SYSTEM_PYTHON = "/usr/bin/python3"
LOCKS = Path("tests/peers/requirements").resolve()
RIVALS: dict[str, tuple[str, ...]] = {
    "canfar": ("-r", str(LOCKS / "canfar.txt")),
    "httpx": ("httpx==0.28.1",),
    "httpx2": ("httpx2==2.16.2",),
    "aiohttp": ("aiohttp", "anyio"),
    "pyreqwest": ("pyreqwest", "anyio"),
}
EXTRAS = ".[local,progress,trio]"
EVERYTHING = ".[astropy,completion,local,pandas,progress,trio]"
# The groups of dependencies that the suite runs on.
SUITE = ("test", "notebook", "examples")
# Without schemathesis, which takes no version of rich that is as low as ours.
LOWEST_SUITE = ("test", "notebook", "examples", "engines")
QUICK = ("-m", "not slow")
NO_UVLOOP = ("-k", "not uvloop")
# tests/conftest.py chooses the number of workers.
PARALLEL = ("-n", "auto", "--dist", "worksteal")
# `coverage`: the tests TRACED reach at least 95 % of the branches of these modules.
COVERED = (
    "*/kaleden/_wire/*",
    "*/kaleden/_results/*",
    "*/kaleden/_engine/_collectors.py",
    "*/kaleden/_engine/_engine.py",
    "*/kaleden/_engine/_operations.py",
    "*/kaleden/_engine/_timeouts.py",
    "*/kaleden/_sessions/_launch/_launcher.py",
    "*/kaleden/_sessions/_scope.py",
)
# `mutation`: the modules to change, and the tests that must detect a change in them.
MUTATED = (
    "_engine/_collectors",
    "_engine/_config",
    "_engine/_engine",
    "_engine/_limiter",
    "_engine/_retry",
    "_engine/_timeouts",
    "_results/_batch",
    "_results/_outcome",
)
MUTATION_TESTS = [
    "tests/_engine",
    "tests/_results",
    "tests/_sessions/_monitor/test_poll_interval.py",
]
# The tests of `coverage`.
TRACED = (
    "tests/_wire",
    *MUTATION_TESTS,
    "tests/_sessions/_launch",
    "tests/_sessions/_monitor/test_live_table.py",
    "tests/_sessions/_monitor/test_wait.py",
    "tests/_sessions/test_scope.py",
)

# Hundreds of tests start Python, and without bytecode each would compile all modules again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

nox.needs_version = ">=2025.2"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.error_on_external_run = True
nox.options.sessions = ["lint", "types", "tests"]


@functools.cache
def get_version(python: str) -> str | None:
    """Return the version of an interpreter; None if it does not start or is not supported.

    A command on the PATH may be a version manager's shim for a version that is not installed.
    """
    code = (
        "import sys, sysconfig; threads = sysconfig.get_config_var('Py_GIL_DISABLED');"
        "print(sys.implementation.name, '%d.%d.%d %s' % sys.version_info[:4], threads or 0)"
    )
    try:
        run = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=60)  # noqa: PLW1510, S603
    except (OSError, subprocess.TimeoutExpired):
        return None

    found = re.fullmatch(r"cpython (\d+\.\d+\.\d+) final 0\n", run.stdout)
    return found[1] if found and parse_version(found[1]) >= parse_version(LOWEST_PYTHON) else None


def parse_version(version: str) -> tuple[int, ...]:
    """Return the parts of a version, for comparisons."""
    return tuple(map(int, version.split(".")))


def find_pythons() -> dict[str, str]:
    """Find the system's interpreter and the newest of each minor version; the keys are versions."""
    managed = sorted(map(str, Path.home().glob(".pyenv/versions/*/bin/python3")))
    named = [f"python{minor}" for minor in nox.project.python_versions(PROJECT)]
    found: dict[str, str] = {}
    for python in (SYSTEM_PYTHON, sys.executable, *managed, *named):
        if version := get_version(python):
            found.setdefault(version, python)
    newest = {parse_version(version)[:2]: version for version in sorted(found, key=parse_version)}
    wanted = {get_version(SYSTEM_PYTHON), platform.python_version(), *newest.values()}
    chosen = sorted((version for version in found if version in wanted), key=parse_version)
    return {version: found[version] for version in chosen}


def get_group(*names: str) -> list[str]:
    """Return the packages of dependency groups."""
    return list(nox.project.dependency_groups(PROJECT, *names))


def pin_lowest() -> list[str]:
    """Return pins of the packages of the suite to the lowest versions that kaleden declares."""
    named = [*PROJECT["project"]["dependencies"], *get_group(*LOWEST_SUITE)]
    for packages in PROJECT["project"]["optional-dependencies"].values():
        named += packages
    pins = (re.fullmatch(r"([\w-]+)>=([\d.]+)([,;].*)?", package) for package in named)
    return [f"{pin[1]}=={pin[2]}" for pin in pins if pin]


def install_apart(session: nox.Session, name: str, *packages: str) -> str:
    """Install packages in a separate environment, and return its interpreter."""
    home = Path(session.create_tmp()).resolve() / name
    python = str(home / ("Scripts" if sys.platform == "win32" else "bin") / "python")
    uv = functools.partial(session.run, sys.executable, "-m", "uv", "--quiet", external=True)
    uv("venv", "--allow-existing", "--python", sys.executable, str(home))
    uv("pip", "install", "--python", python, *packages)
    return python


def install_distribution(session: nox.Session, *options: str) -> None:
    """Build the distributions, install the wheel, and change to the tests of the source."""
    away = Path(session.create_tmp()).resolve() / "away"
    shutil.rmtree(away, ignore_errors=True)
    dist = away / "dist"
    session.install("build", *get_group("publish"))
    session.run("python", "-m", "build", "--quiet", "--outdir", str(dist))
    [wheel], [source] = dist.glob("*.whl"), dist.glob("*.tar.gz")
    session.run("twine", "check", "--strict", str(wheel), str(source))
    session.run("validate-pyproject", "pyproject.toml")
    extras = EVERYTHING.removeprefix(".")
    session.install("--force-reinstall", *options, f"{wheel}{extras}", *get_group(*LOWEST_SUITE))
    session.env["KALEDEN_DIST"] = str(dist)
    shutil.unpack_archive(source, dist)
    unpacked = dist / source.name.removesuffix(".tar.gz")
    # Do not move the rest, so that only the installed package can be imported.
    for needed in ("docs/how-to", "pyproject.toml", "tests"):
        (away / needed).parent.mkdir(exist_ok=True)
        shutil.move(unpacked / needed, away / needed)
    session.chdir(away)


def add_to_pythonpath(settings: str, folder: str) -> str:
    """Return the settings with one more folder for pytest to import from."""
    more = rf'\1, "{folder}"]'
    settings, lines = re.subn(r"(?m)^(pythonpath = \[.+)\]$", more, settings)
    if lines != 1:
        raise ValueError("pyproject.toml has no line `pythonpath = [...]`, and pytest needs one")
    return settings


OTHERS = {v: path for v, path in find_pythons().items() if v != platform.python_version()}
# `minimums` uses another Python of the lowest minor version, if one is installed. `pythons` uses
# the rest, so that no Python runs the suite twice.
SECOND = next((v for v in OTHERS if parse_version(v)[:2] == parse_version(LOWEST_PYTHON)[:2]), "")
REST = {version: path for version, path in OTHERS.items() if version != SECOND}
# asyncio's eager tasks need Python 3.12. They are tested on the newest Python.
EAGER = next((path for v, path in reversed(REST.items()) if parse_version(v) >= (3, 12)), None)


@nox.session
def demo(session: nox.Session) -> None:
    """Run the demo: launch, watch, read and end a dozen sessions on the embedded platform."""
    session.install(EXTRAS)
    session.run("kaleden", "demo", *session.posargs)


@nox.session(tags=["ci"])
def tests(session: nox.Session) -> None:
    """Run the quick suite on asyncio, trio and uvloop; pytest options may follow ``--``."""
    session.install("-e", EVERYTHING, *get_group(*SUITE))
    if session.posargs:
        session.run("pytest", *session.posargs)
        return

    session.run("pytest", *PARALLEL, *QUICK)
    others = sorted(set(nox.registry.get()) - {"demo", "lock", "tests"})
    loops = "asyncio and trio" if sys.platform == "win32" else "asyncio, trio and uvloop"
    # Print this at the exit of nox, so that it is the last line.
    atexit.register(
        print,
        f"Run: the quick suite on Python {platform.python_version()}, with {loops}; it passed. "
        f"Not part of it: `nox -s {' '.join(others)}`; `nox -l` describes them.",
    )


@nox.session(tags=["ci"])
@nox.parametrize("python", [nox.param(path, id=v) for v, path in REST.items()])
def pythons(session: nox.Session) -> None:
    """Run the quick suite on asyncio and trio with the other Pythons of this machine."""
    session.install("-e", EVERYTHING, *get_group(*SUITE))
    chosen = session.posargs or (*QUICK, "-k", "not uvloop and not eager")
    session.run("pytest", *PARALLEL, *chosen)
    if not session.posargs and session.python == EAGER:
        session.run("pytest", *PARALLEL, *QUICK, "tests/promises", "-k", "eager")


@nox.session(tags=["ci"])
def sweeps(session: nox.Session) -> None:
    """Run the tests marked ``slow``: many trials of one promise each."""
    session.install("-e", EVERYTHING, *get_group(*SUITE, "fuzz"))
    session.run("pytest", *PARALLEL, "-m", "slow", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Measure the branch coverage of the core modules, which must be at least 95 %."""
    session.install("-e", EVERYTHING, *get_group(*SUITE))
    data, covered = f"--data-file={session.create_tmp()}/coverage", f"--include={','.join(COVERED)}"
    session.run("coverage", "run", data, covered, "-m", "pytest", *QUICK, *TRACED)
    session.run("coverage", "report", data, covered, "--fail-under=95", "--precision=1")


@nox.session(tags=["ci"])
def asyncio_only(session: nox.Session) -> None:
    """Run the quick tests on asyncio in debug mode, without trio installed."""
    session.install(".[local,progress]", *get_group("test"))
    session.run(
        "python",
        "-c",
        "import importlib.util as u; assert u.find_spec('trio') is None",
        silent=True,
    )
    env = {"KALEDEN_ASYNCIO_DEBUG": "1"}
    chosen = session.posargs or (*QUICK, "-k", "asyncio or trio")
    session.run("pytest", *PARALLEL, *chosen, env=env)


@nox.session(tags=["ci"])
@nox.parametrize("python", [nox.param(OTHERS.get(SECOND), id=SECOND or platform.python_version())])
def minimums(session: nox.Session) -> None:
    """Run the quick suite on the built wheel, with the lowest version of each dependency."""
    constraints = Path(session.create_tmp()).resolve() / "lowest.txt"
    constraints.write_text("\n".join(pin_lowest()) + "\n", encoding="utf-8")
    install_distribution(session, "-c", str(constraints))
    # The test client of early starlette releases, which one example uses, emits this warning.
    ignored = ("-W", "ignore:The anyio.abc.BlockingPortal alias:DeprecationWarning")
    session.run("pytest", *PARALLEL, *(session.posargs or (*QUICK, *NO_UVLOOP, *ignored)))


@nox.session(tags=["ci"])
def lint(session: nox.Session) -> None:
    """Check style, formatting, and that the generated modules are up to date."""
    session.install(*get_group("lint"))
    session.run("python", "tools/generate_sync.py", "--check")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(tags=["ci"])
def types(session: nox.Session) -> None:
    """Check types with mypy and pyright, which find different errors."""
    session.install("-e", EXTRAS, *get_group("test", "fuzz", "examples", "engines", "types"), "nox")
    session.run("mypy")
    session.run("pyright")
    # Check the installed package as users see it: each public name must have a type.
    session.install("--force-reinstall", "--no-deps", ".")
    session.run("pyright", "--verifytypes", "kaleden", "--ignoreexternal")


@nox.session(tags=["ci"])
def docs(session: nox.Session) -> None:
    """Build the documentation in build/docs/html/index.html; warnings are errors."""
    session.install("-e", EXTRAS, *get_group("docs"))
    strictly = ("--nitpicky", "--fail-on-warning", "--keep-going", "--quiet")
    session.run("sphinx-build", *strictly, "-d", "build/docs/doctrees", "docs", "build/docs/html")


@nox.session
def soak(session: nox.Session) -> None:
    """Run 100 000 operations, or the given number, with faults and cancellations."""
    session.install("-e", EXTRAS, *get_group("test"))
    session.chdir("tests")
    session.run("python", "-m", "soak", *session.posargs)


@nox.session
def mutation(session: nox.Session) -> None:
    """Make small changes in the core modules, and report those that no test detects."""
    session.install("-e", EXTRAS, *get_group("test"), "mutmut>=3.8")
    home = Path(session.create_tmp()).resolve() / "mutation"
    shutil.rmtree(home, ignore_errors=True)
    # mutmut finds packages at the root and in src only.
    shutil.copytree("lib", home / "src")
    shutil.copytree("tests", home / "tests")
    settings = Path("pyproject.toml").read_text(encoding="utf-8")
    settings = add_to_pythonpath(settings, "src")
    modules = [f"src/kaleden/{name}.py" for name in MUTATED]
    added = [
        "[tool.mutmut]",
        'source_paths = ["src"]',
        f"only_mutate = {modules}",
        f"pytest_add_cli_args = {list(QUICK)}",
        f"pytest_add_cli_args_test_selection = {MUTATION_TESTS}",
        "use_git_change_detection = false",
    ]
    (home / "pyproject.toml").write_text("\n".join([settings, *added, ""]), encoding="utf-8")
    session.chdir(home)
    # With CI set, Hypothesis draws the same examples each time.
    session.run("mutmut", "run", *session.posargs, env={"PYTHONPATH": "src", "CI": "1"})
    session.run("mutmut", "results")


@nox.session(tags=["ci"])
def peers(session: nox.Session) -> None:
    """Test the embedded platform with the other clients, each in its own environment."""
    session.install(EXTRAS, *get_group("test"))
    pythons = {}
    for name in PEERS:
        locked = ("-r", str(LOCKS / f"{name}.txt"))
        pythons[f"KALEDEN_PEER_{name.upper()}"] = install_apart(session, name, *locked)
    session.run("pytest", "tests/peers", "-p", "no:cacheprovider", *session.posargs, env=pythons)


@nox.session(tags=["ci"])
def engines(session: nox.Session) -> None:
    """Run workers of Parsl and Dask in sessions; ``-- -m slow`` interrupts and kills some."""
    session.install("-e", EXTRAS, *get_group("test", "examples", "engines"))
    session.run("pytest", "tests/integrations", *(session.posargs or QUICK))
    if not session.posargs:
        session.run("pytest", "tests/docs/test_examples.py", "-k", "use-with")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure kaleden and other clients; ``-- --quick`` for a short run, ``-- --help`` for more."""
    session.install(".[local,trio]", *get_group("bench"))
    pythons = {name: install_apart(session, name, *packages) for name, packages in RIVALS.items()}
    env = {"KALEDEN_BENCH_PYTHONS": json.dumps(pythons)}
    session.run("python", "-m", "benchmarks", *session.posargs, env=env)


@nox.session
def lock(session: nox.Session) -> None:
    """Resolve the dependencies of the other clients, and write their versions."""
    session.install("uv")
    session.chdir(LOCKS)
    options = ("--universal", "--python-version=3.11", "--no-annotate", "--upgrade", "--quiet")
    for name in PEERS:
        command = (
            "--custom-compile-command=nox -s lock",
            f"{name}.in",
            f"--output-file={name}.txt",
        )
        session.run("uv", "pip", "compile", *options, *command)
