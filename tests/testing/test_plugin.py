"""Tests of the pytest plugin: each runs pytest on a small suite in a separate process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from attrs import frozen

from support import HAS_TRIO

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "test-your-own-program.md"
if not GUIDE.exists():
    pytest.skip("needs the documentation of the checkout", allow_module_level=True)

LEAKING_PROGRAM = """
async def reduce_nights(session):
    [night, *_] = (await session.create("night", "skaha/astroml", cmd="true", replicas=3)).values
    return (await session.destroy(night)).ok
"""
MARKED = """
import pytest
from kaleden.local import LocalPlatform

@pytest.mark.kaleden("local", user="ada")
def test_kind(kaleden_platform):
    assert isinstance(kaleden_platform.platform, LocalPlatform)
    assert kaleden_platform.platform.user == "ada"

@pytest.mark.kaleden(latency=5)
def test_options(kaleden_platform):
    assert not isinstance(kaleden_platform.platform, LocalPlatform)

@pytest.mark.kaleden("cloud")
@pytest.mark.xfail(raises=ValueError, strict=True)
def test_mistake(kaleden_platform):
    pass
"""
UNUSED = """
import sys

def test_nothing(pytestconfig):
    assert pytestconfig.pluginmanager.hasplugin("kaleden")
    assert "kaleden" not in sys.modules
"""


def find_code_blocks(language: str) -> list[str]:
    """Return the code blocks of the guide, as a reader would copy them."""
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


PROGRAM, SUITE, TRIO_SUITE, PLAIN_SUITE, MARKED_SUITE, COMMAND_SUITE = find_code_blocks("python")
ANYIO, ASYNCIO = find_code_blocks("ini")


@frozen
class Run:
    """The exit status and the output of pytest."""

    status: int
    output: str

    def find_results(self, test: str) -> list[str]:
        """Return the results of the tests with names that begin with *test*."""
        return re.findall(rf"^(\w+) (?:at \w+ of )?{re.escape(test)}", self.output, re.MULTILINE)


def run_suite(directory: Path, *arguments: str, **files: str) -> Run:
    """Run pytest on these files, without the plugins that only this repository uses."""
    # Without a configuration file here, pytest would use one from a parent folder.
    for name, text in {"pytest__ini": "[pytest]\n", **files}.items():
        path = directory / name.replace("__", ".")
        path.with_suffix(path.suffix or ".py").write_text(text, encoding="utf-8")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "COV"))}
    options = ["-rA", "-q", "-W", "error", "-p", "no:cacheprovider", "-p", "no:timeout"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *arguments],
        cwd=directory,
        env={**inherited, "PYTHONPATH": str(directory)},
        capture_output=True,
        text=True,
        check=False,
    )
    return Run(done.returncode, done.stdout + done.stderr)


@pytest.fixture(scope="module")
def anyio_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run one suite with anyio's plugin. Most tests share it, to save time."""
    trio_suite = {"test_trio": TRIO_SUITE} if HAS_TRIO else {}
    return run_suite(
        tmp_path_factory.mktemp("suite"),
        *("-p", "no:asyncio"),
        pytest__ini=ANYIO,
        reduction=PROGRAM,
        test_reduction=SUITE,
        test_plain=PLAIN_SUITE,
        test_marks=MARKED_SUITE,
        test_command=COMMAND_SUITE,
        leaking=LEAKING_PROGRAM,
        test_leaking=SUITE.replace("from reduction", "from leaking"),
        test_marked=MARKED,
        **trio_suite,
    )


def test_suite_of_guide_passes_with_anyio_plugin(anyio_run: Run) -> None:
    assert ["PASSED"] * (1 + HAS_TRIO) == anyio_run.find_results("test_reduction.py"), (
        anyio_run.output
    )


@pytest.mark.skipif(not HAS_TRIO, reason="needs trio")
def test_suite_of_guide_passes_with_plain_trio(anyio_run: Run) -> None:
    assert ["PASSED"] == anyio_run.find_results("test_trio.py"), anyio_run.output


@pytest.mark.parametrize(
    ("suite", "tests"),
    [("test_plain.py", 1), ("test_marks.py", 2 + 2 * HAS_TRIO), ("test_command.py", 1 + HAS_TRIO)],
)
def test_other_examples_of_guide_pass(anyio_run: Run, suite: str, tests: int) -> None:
    assert ["PASSED"] * tests == anyio_run.find_results(suite), anyio_run.output


def test_suite_of_guide_fails_for_leaking_program(anyio_run: Run) -> None:
    assert ["FAILED"] * (1 + HAS_TRIO) == anyio_run.find_results("test_leaking.py"), (
        anyio_run.output
    )
    assert ">       assert kaleden_platform.sessions() == []" in anyio_run.output


def test_marker_selects_platform_and_options(anyio_run: Run) -> None:
    assert ["PASSED"] == anyio_run.find_results("test_marked.py::test_kind"), anyio_run.output
    assert ["PASSED"] == anyio_run.find_results("test_marked.py::test_options"), anyio_run.output
    assert ["XFAIL"] == anyio_run.find_results("test_marked.py::test_mistake"), anyio_run.output


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("pytest_asyncio"), reason="needs pytest-asyncio")
def test_suite_of_guide_passes_with_pytest_asyncio(tmp_path: Path) -> None:
    run = run_suite(tmp_path, pytest__ini=ASYNCIO, reduction=PROGRAM, test_reduction=SUITE)
    assert (0, ["PASSED"]) == (run.status, run.find_results("test_reduction.py")), run.output


@pytest.mark.slow
def test_suite_of_guide_passes_on_real_processes(tmp_path: Path) -> None:
    run = run_suite(
        tmp_path,
        *("-p", "no:asyncio", "--kaleden-platform=local"),
        pytest__ini=ANYIO,
        reduction=PROGRAM,
        test_reduction=SUITE,
    )
    assert (0, ["PASSED"] * (1 + HAS_TRIO)) == (
        run.status,
        run.find_results("test_reduction.py"),
    ), run.output


def test_suite_of_guide_is_short() -> None:
    assert max(len(SUITE.splitlines()), len(TRIO_SUITE.splitlines())) < 30


def test_suite_without_fixtures_does_not_import_kaleden(tmp_path: Path) -> None:
    run = run_suite(tmp_path, "-p", "no:asyncio", "-p", "no:anyio", test_it=UNUSED)
    assert (0, ["PASSED"]) == (run.status, run.find_results("test_it.py")), run.output
