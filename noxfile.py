"""What can be done with a checkout: ``nox -l`` lists it, ``nox -s tests`` runs the suite."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nox

PROJECT = nox.project.load_toml("pyproject.toml")
PEERS = {"canfar": "canfar==1.5.2", "skaha": "skaha==1.7.0"}
RIVALS: dict[str, tuple[str, ...]] = {
    "canfar": (PEERS["canfar"],),
    "httpx": ("httpx==0.28.1",),
    "httpx2": ("httpx2==2.16.2",),
    "aiohttp": ("aiohttp", "anyio"),
    "pyreqwest": ("pyreqwest", "anyio"),
}
EXTRAS = ".[local,progress,trio]"
TABLES = ".[astropy,pandas]"
NOT_TWICE = ("-m", "not slow")
# The tests of what decides; the others run twice as fast untraced.
TRACED = ("tests/testing", "tests/wire", *sorted(map(str, Path("tests").glob("test_*.py"))))
# Decisions live in these: hardly a branch of them may go untested.
COVERED = (
    "*/kaleden/_wire/*",
    "*/kaleden/_outcomes.py",
    "*/kaleden/_results.py",
    "*/kaleden/_show/*",
    "*/kaleden/_courier.py",
    "*/kaleden/_engine.py",
    "*/kaleden/_launch.py",
    "*/kaleden/_operation.py",
    "*/kaleden/_scope.py",
    "*/kaleden/_sinks.py",
)
# What decides, and the tests that are to notice if it decided otherwise.
MUTATED = (
    "_adaptive",
    "_budget",
    "_courier",
    "_engine",
    "_gate",
    "_outcomes",
    "_results",
    "_policy",
    "_retry",
    "_sinks",
)
MUTATION_TESTS = [
    f"tests/test_{name}.py"
    for name in (
        "all_tasks",
        "courier",
        "details",
        "engine",
        "gate",
        "gate_schedules",
        "outcomes",
        "policy",
        "progress",
        "retry",
        "sinks",
        "tables",
    )
]

nox.needs_version = ">=2025.2"
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_venv = "yes"
nox.options.error_on_external_run = True
nox.options.sessions = ["lint", "types", "tests"]


def runs(python: str) -> bool:
    """Tell whether an interpreter is here and starts; some on the PATH are only signposts."""
    if shutil.which(python) is None:
        return False
    return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0  # noqa: S603


def found_pythons() -> list[str] | None:
    """List our versions that are installed here; None for just the one that runs nox."""
    versions = nox.project.python_versions(PROJECT)
    return [version for version in versions if runs(f"python{version}")] or None


def group(*names: str) -> list[str]:
    """List the packages of dependency groups."""
    return list(nox.project.dependency_groups(PROJECT, *names))


def lowest() -> list[str]:
    """Pin every package that we name to the lowest version that we say we work with."""
    named = [*PROJECT["project"]["dependencies"], *group("test")]
    for packages in PROJECT["project"]["optional-dependencies"].values():
        named += packages
    pins = (re.fullmatch(r"([\w-]+)>=([\d.]+)([,;].*)?", package) for package in named)
    return [f"{pin[1]}=={pin[2]}" for pin in pins if pin]


def apart(session: nox.Session, name: str, *packages: str) -> str:
    """Install packages in an environment of their own, and name its interpreter."""
    home = Path(session.create_tmp()).resolve() / name
    # The virtualenv that nox brings along is not always on the PATH.
    session.run(sys.executable, "-m", "virtualenv", "--quiet", str(home), external=True)
    python = str(home / ("Scripts" if sys.platform == "win32" else "bin") / "python")
    session.run(python, "-m", "pip", "install", "--quiet", *packages, external=True)
    return python


def go_to_installed(session: nox.Session, *options: str) -> None:
    """Build what is published, install the wheel, and go where the source's tests are."""
    away = Path(session.create_tmp()).resolve() / "away"
    shutil.rmtree(away, ignore_errors=True)
    dist = away / "dist"
    session.install("build", *group("publish"))
    session.run("python", "-m", "build", "--quiet", "--outdir", str(dist))
    [wheel], [source] = dist.glob("*.whl"), dist.glob("*.tar.gz")
    session.run("twine", "check", "--strict", str(wheel), str(source))
    session.run("validate-pyproject", "pyproject.toml")
    extras = EXTRAS.removeprefix(".")
    session.install("--force-reinstall", *options, f"{wheel}{extras}", *group("test"))
    session.env["KALEDEN_DIST"] = str(dist)
    shutil.unpack_archive(source, dist)
    unpacked = dist / source.name.removesuffix(".tar.gz")
    # Not the rest: only what is installed is to be imported.
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


@nox.session
def demo(session: nox.Session) -> None:
    """Launch, watch, read and end a dozen sessions on the embedded platform."""
    session.install(EXTRAS)
    session.run("kaleden", "demo", *session.posargs)


@nox.session(python=found_pythons())
def tests(session: nox.Session) -> None:
    """Run the suite on every backend, with every Python that is found."""
    groups = group("test", "notebook", "fuzz", "examples")
    session.install("-e", EXTRAS, "-e", TABLES, *groups)
    if session.posargs:
        session.run("pytest", *session.posargs)
        return

    data, covered = f"--data-file={session.create_tmp()}/coverage", f"--include={','.join(COVERED)}"
    session.run("coverage", "run", data, covered, "-m", "pytest", *NOT_TWICE, *TRACED)
    session.run("coverage", "report", data, covered, "--fail-under=95", "--precision=1")
    session.run("pytest", *NOT_TWICE, *(f"--ignore={path}" for path in TRACED))
    session.run("pytest", "-m", "slow")


@nox.session
def tests_asyncio_only(session: nox.Session) -> None:
    """Run the suite where trio is not installed."""
    session.install(".[local,progress]", *group("test"))
    session.run(
        "python",
        "-c",
        "import importlib.util as u; assert u.find_spec('trio') is None",
        silent=True,
    )
    session.run("pytest", *NOT_TWICE, *session.posargs)


@nox.session
def minimums(session: nox.Session) -> None:
    """Run the suite against the wheel with the lowest versions that we say we work with."""
    constraints = Path(session.create_tmp()).resolve() / "lowest.txt"
    constraints.write_text("\n".join(lowest()) + "\n", encoding="utf-8")
    go_to_installed(session, "-c", str(constraints))
    session.run("pytest", *NOT_TWICE, *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    session.install(*group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check types with two checkers that see different things."""
    session.install("-e", EXTRAS, *group("test", "fuzz", "examples", "engines", "types"), "nox")
    session.run("mypy")
    session.run("pyright")
    # What strangers see: the package as installed, where a public name without a type fails this.
    session.install("--force-reinstall", "--no-deps", ".")
    session.run("pyright", "--verifytypes", "kaleden", "--ignoreexternal")


@nox.session
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
        f"pytest_add_cli_args = {list(NOT_TWICE)}",
        f"pytest_add_cli_args_test_selection = {MUTATION_TESTS}",
        "use_git_change_detection = false",
    ]
    (home / "pyproject.toml").write_text("\n".join([settings, *added, ""]), encoding="utf-8")
    session.chdir(home)
    # On CI, Hypothesis draws the same examples each time.
    session.run("mutmut", "run", *session.posargs, env={"PYTHONPATH": "src", "CI": "1"})
    session.run("mutmut", "results")


@nox.session
def peers(session: nox.Session) -> None:
    """Drive the embedded platform with the other clients, unmodified, each by itself."""
    session.install(EXTRAS, *group("test"))
    pythons = {}
    for name, package in PEERS.items():
        pythons[f"KALEDEN_PEER_{name.upper()}"] = apart(session, name, package)
    session.run("pytest", "tests/peers", "-p", "no:cacheprovider", *session.posargs, env=pythons)


@nox.session
def engines(session: nox.Session) -> None:
    """Run Parsl's and Dask's workers in sessions; ``-- -m slow`` interrupts and kills some."""
    session.install("-e", EXTRAS, *group("test", "examples", "engines"))
    session.run("pytest", "tests/engines", *(session.posargs or NOT_TWICE))
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
def package(session: nox.Session) -> None:
    """Build the wheel, install it elsewhere, and run the suite against that."""
    go_to_installed(session)
    session.run("pytest", *NOT_TWICE, *session.posargs)
