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
# `mutation`: modules that decide, and the tests that must notice a change in them.
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

# Hundreds of tests start a Python, which would compile kaleden and more each time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

nox.needs_version = ">=2025.2"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.error_on_external_run = True
nox.options.sessions = ["lint", "types", "tests"]


@functools.cache
def version_of(python: str) -> str | None:
    """Return the version of an interpreter; None if it does not start, or is not supported.

    A command on the PATH may be a shim of a version manager that starts nothing.
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
    return found[1] if found and numbers(found[1]) >= numbers(LOWEST_PYTHON) else None


def numbers(version: str) -> tuple[int, ...]:
    """Return the parts of a version, which compare as it does."""
    return tuple(map(int, version.split(".")))


def find_pythons() -> dict[str, str]:
    """Find the system's interpreter and the newest of each minor version, by their versions."""
    managed = sorted(map(str, Path.home().glob(".pyenv/versions/*/bin/python3")))
    named = [f"python{minor}" for minor in nox.project.python_versions(PROJECT)]
    found: dict[str, str] = {}
    for python in (SYSTEM_PYTHON, sys.executable, *managed, *named):
        if version := version_of(python):
            found.setdefault(version, python)
    newest = {numbers(version)[:2]: version for version in sorted(found, key=numbers)}
    wanted = {version_of(SYSTEM_PYTHON), platform.python_version(), *newest.values()}
    chosen = sorted((version for version in found if version in wanted), key=numbers)
    return {version: found[version] for version in chosen}


def group(*names: str) -> list[str]:
    """List the packages of dependency groups."""
    return list(nox.project.dependency_groups(PROJECT, *names))


def lowest() -> list[str]:
    """Pin every package that the suite runs on to the lowest version that we declare."""
    named = [*PROJECT["project"]["dependencies"], *group(*LOWEST_SUITE)]
    for packages in PROJECT["project"]["optional-dependencies"].values():
        named += packages
    pins = (re.fullmatch(r"([\w-]+)>=([\d.]+)([,;].*)?", package) for package in named)
    return [f"{pin[1]}=={pin[2]}" for pin in pins if pin]


def apart(session: nox.Session, name: str, *packages: str) -> str:
    """Install packages in an environment of their own, and name its interpreter."""
    home = Path(session.create_tmp()).resolve() / name
    python = str(home / ("Scripts" if sys.platform == "win32" else "bin") / "python")
    uv = functools.partial(session.run, sys.executable, "-m", "uv", "--quiet", external=True)
    uv("venv", "--allow-existing", "--python", sys.executable, str(home))
    uv("pip", "install", "--python", python, *packages)
    return python


def go_to_installed(session: nox.Session, *options: str) -> None:
    """Build the files that are published, install the wheel, and go to the source's tests."""
    away = Path(session.create_tmp()).resolve() / "away"
    shutil.rmtree(away, ignore_errors=True)
    dist = away / "dist"
    session.install("build", *group("publish"))
    session.run("python", "-m", "build", "--quiet", "--outdir", str(dist))
    [wheel], [source] = dist.glob("*.whl"), dist.glob("*.tar.gz")
    session.run("twine", "check", "--strict", str(wheel), str(source))
    session.run("validate-pyproject", "pyproject.toml")
    extras = EVERYTHING.removeprefix(".")
    session.install("--force-reinstall", *options, f"{wheel}{extras}", *group(*LOWEST_SUITE))
    session.env["KALEDEN_DIST"] = str(dist)
    shutil.unpack_archive(source, dist)
    unpacked = dist / source.name.removesuffix(".tar.gz")
    # Not the rest: only the installed package is to be imported.
    for needed in ("docs/how-to", "pyproject.toml", "tests"):
        (away / needed).parent.mkdir(exist_ok=True)
        shutil.move(unpacked / needed, away / needed)
    session.chdir(away)


def found_from(settings: str, folder: str) -> str:
    """Let pytest import from one more folder."""
    more = rf'\1, "{folder}"]'
    settings, lines = re.subn(r"(?m)^(pythonpath = \[.+)\]$", more, settings)
    if lines != 1:
        raise ValueError("pyproject.toml has no line `pythonpath = [...]`, and pytest needs one")
    return settings


OTHERS = {v: path for v, path in find_pythons().items() if v != platform.python_version()}
# `minimums` takes another Python of the lowest minor version, if there is one, and `pythons` the
# rest, so that none runs the suite twice.
SECOND = next((v for v in OTHERS if numbers(v)[:2] == numbers(LOWEST_PYTHON)[:2]), "")
REST = {version: path for version, path in OTHERS.items() if version != SECOND}
# Eager tasks of asyncio need Python 3.12, and are tried on the newest.
EAGER = next((path for v, path in reversed(REST.items()) if numbers(v) >= (3, 12)), None)


@nox.session
def demo(session: nox.Session) -> None:
    """Launch, watch, read and end a dozen sessions on the embedded platform."""
    session.install(EXTRAS)
    session.run("kaleden", "demo", *session.posargs)


@nox.session(tags=["ci"])
def tests(session: nox.Session) -> None:
    """Run the quick suite on asyncio, trio and uvloop; options of pytest may follow ``--``."""
    session.install("-e", EVERYTHING, *group(*SUITE))
    if session.posargs:
        session.run("pytest", *session.posargs)
        return

    session.run("pytest", *PARALLEL, *QUICK)
    others = sorted(set(nox.registry.get()) - {"demo", "lock", "tests"})
    loops = "asyncio and trio" if sys.platform == "win32" else "asyncio, trio and uvloop"
    # At the exit of nox, so that this is the last line.
    atexit.register(
        print,
        f"Run: the quick suite on Python {platform.python_version()}, with {loops}; it passed. "
        f"Not part of it: `nox -s {' '.join(others)}`; `nox -l` describes them.",
    )


@nox.session(tags=["ci"])
@nox.parametrize("python", [nox.param(path, id=v) for v, path in REST.items()])
def pythons(session: nox.Session) -> None:
    """Run the quick suite on asyncio and trio with the other Pythons that start here."""
    session.install("-e", EVERYTHING, *group(*SUITE))
    chosen = session.posargs or (*QUICK, "-k", "not uvloop and not eager")
    session.run("pytest", *PARALLEL, *chosen)
    if not session.posargs and session.python == EAGER:
        session.run("pytest", *PARALLEL, *QUICK, "tests/promises", "-k", "eager")


@nox.session(tags=["ci"])
def sweeps(session: nox.Session) -> None:
    """Run the tests marked ``slow``: many trials of one promise each."""
    session.install("-e", EVERYTHING, *group(*SUITE, "fuzz"))
    session.run("pytest", *PARALLEL, "-m", "slow", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Trace the tests of the modules that decide, and report the branches that they leave out."""
    session.install("-e", EVERYTHING, *group(*SUITE))
    data, covered = f"--data-file={session.create_tmp()}/coverage", f"--include={','.join(COVERED)}"
    session.run("coverage", "run", data, covered, "-m", "pytest", *QUICK, *TRACED)
    session.run("coverage", "report", data, covered, "--fail-under=95", "--precision=1")


@nox.session(tags=["ci"])
def asyncio_only(session: nox.Session) -> None:
    """Run the quick tests of asyncio, in debug mode, where trio is not installed."""
    session.install(".[local,progress]", *group("test"))
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
    """Run the quick suite on the built wheel, with the lowest version of every package."""
    constraints = Path(session.create_tmp()).resolve() / "lowest.txt"
    constraints.write_text("\n".join(lowest()) + "\n", encoding="utf-8")
    go_to_installed(session, "-c", str(constraints))
    # The test client of early releases of starlette, which one example uses, has such a warning.
    ignored = ("-W", "ignore:The anyio.abc.BlockingPortal alias:DeprecationWarning")
    session.run("pytest", *PARALLEL, *(session.posargs or (*QUICK, *NO_UVLOOP, *ignored)))


@nox.session(tags=["ci"])
def lint(session: nox.Session) -> None:
    """Check style, formatting, and that the generated modules are up to date."""
    session.install(*group("lint"))
    session.run("python", "tools/generate_sync.py", "--check")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(tags=["ci"])
def types(session: nox.Session) -> None:
    """Check types with two checkers that see different things."""
    session.install("-e", EXTRAS, *group("test", "fuzz", "examples", "engines", "types"), "nox")
    session.run("mypy")
    session.run("pyright")
    # What strangers see: the package as installed, where a public name without a type fails this.
    session.install("--force-reinstall", "--no-deps", ".")
    session.run("pyright", "--verifytypes", "kaleden", "--ignoreexternal")


@nox.session(tags=["ci"])
def docs(session: nox.Session) -> None:
    """Build the documentation, to be read at build/docs/html/index.html; warnings are errors."""
    session.install("-e", EXTRAS, *group("docs"))
    strictly = ("--nitpicky", "--fail-on-warning", "--keep-going", "--quiet")
    session.run("sphinx-build", *strictly, "-d", "build/docs/doctrees", "docs", "build/docs/html")


@nox.session
def soak(session: nox.Session) -> None:
    """Do 100 000 operations, or as many as are asked for, with faults and cancellations."""
    session.install("-e", EXTRAS, *group("test"))
    session.chdir("tests")
    session.run("python", "-m", "soak", *session.posargs)


@nox.session
def mutation(session: nox.Session) -> None:
    """Change what decides in small ways, and see which changes no test notices."""
    session.install("-e", EXTRAS, *group("test"), "mutmut>=3.8")
    home = Path(session.create_tmp()).resolve() / "mutation"
    shutil.rmtree(home, ignore_errors=True)
    # mutmut knows packages at the root or in src, and no others.
    shutil.copytree("lib", home / "src")
    shutil.copytree("tests", home / "tests")
    settings = Path("pyproject.toml").read_text(encoding="utf-8")
    settings = found_from(settings, "src")
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
    # On CI, Hypothesis draws the same examples each time.
    session.run("mutmut", "run", *session.posargs, env={"PYTHONPATH": "src", "CI": "1"})
    session.run("mutmut", "results")


@nox.session(tags=["ci"])
def peers(session: nox.Session) -> None:
    """Drive the embedded platform with the other clients, unmodified, each by itself."""
    session.install(EXTRAS, *group("test"))
    pythons = {}
    for name in PEERS:
        locked = ("-r", str(LOCKS / f"{name}.txt"))
        pythons[f"KALEDEN_PEER_{name.upper()}"] = apart(session, name, *locked)
    session.run("pytest", "tests/peers", "-p", "no:cacheprovider", *session.posargs, env=pythons)


@nox.session(tags=["ci"])
def engines(session: nox.Session) -> None:
    """Run Parsl's and Dask's workers in sessions; ``-- -m slow`` interrupts and kills some."""
    session.install("-e", EXTRAS, *group("test", "examples", "engines"))
    session.run("pytest", "tests/integrations", *(session.posargs or QUICK))
    if not session.posargs:
        session.run("pytest", "tests/docs/test_examples.py", "-k", "use-with")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure kaleden beside other clients; ``-- --quick`` for a look, ``-- --help`` for more."""
    session.install(".[local,trio]", *group("bench"))
    pythons = {name: apart(session, name, *packages) for name, packages in RIVALS.items()}
    env = {"KALEDEN_BENCH_PYTHONS": json.dumps(pythons)}
    session.run("python", "-m", "benchmarks", *session.posargs, env=env)


@nox.session
def lock(session: nox.Session) -> None:
    """Resolve the packages that the other clients are tested with, and write their versions."""
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
