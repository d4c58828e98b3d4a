"""The pytest plugin, in suites of strangers: each is a pytest in a process of its own."""

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
    pytest.skip("the suite runs away from its checkout", allow_module_level=True)

CARELESS = """
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


def blocks(language: str) -> list[str]:
    """The blocks of code in the guide, as a reader would copy them."""
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


PROGRAM, SUITE, TRIO_SUITE, PLAIN_SUITE, MARKED_SUITE, COMMAND_SUITE = blocks("python")
ANYIO, ASYNCIO = blocks("ini")


@frozen
class Run:
    """What a pytest said."""

    status: int
    output: str

    def of(self, test: str) -> list[str]:
        """The results of the tests whose name begins so."""
        return re.findall(rf"^(\w+) (?:at \w+ of )?{re.escape(test)}", self.output, re.MULTILINE)


def run_suite(directory: Path, *arguments: str, **files: str) -> Run:
    """Run pytest on these files, with no more plugins than a stranger has."""
    # A configuration of its own, or pytest looks for one in the folders above.
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
def anyios(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A suite by anyio's plugin; most of what there is to try is in it, for the sake of time."""
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
        careless=CARELESS,
        test_careless=SUITE.replace("from reduction", "from careless"),
        test_marked=MARKED,
        **trio_suite,
    )


def test_the_guides_suite_passes_under_anyios_plugin(anyios: Run) -> None:
    assert ["PASSED"] * (1 + HAS_TRIO) == anyios.of("test_reduction.py"), anyios.output


@pytest.mark.skipif(not HAS_TRIO, reason="needs trio")
def test_the_guides_suite_passes_under_plain_trio(anyios: Run) -> None:
    assert ["PASSED"] == anyios.of("test_trio.py"), anyios.output


@pytest.mark.parametrize(
    ("suite", "tests"),
    [("test_plain.py", 1), ("test_marks.py", 2 + 2 * HAS_TRIO), ("test_command.py", 1 + HAS_TRIO)],
)
def test_the_guides_other_examples_pass(anyios: Run, suite: str, tests: int) -> None:
    assert ["PASSED"] * tests == anyios.of(suite), anyios.output


def test_the_guides_suite_fails_for_a_program_that_is_careless(anyios: Run) -> None:
    assert ["FAILED"] * (1 + HAS_TRIO) == anyios.of("test_careless.py"), anyios.output
    assert ">       assert kaleden_platform.sessions() == []" in anyios.output


def test_a_marker_chooses_the_platform_and_its_options(anyios: Run) -> None:
    assert ["PASSED"] == anyios.of("test_marked.py::test_kind"), anyios.output
    assert ["PASSED"] == anyios.of("test_marked.py::test_options"), anyios.output
    assert ["XFAIL"] == anyios.of("test_marked.py::test_mistake"), anyios.output


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("pytest_asyncio"), reason="needs pytest-asyncio")
def test_the_guides_suite_passes_under_pytest_asyncio(tmp_path: Path) -> None:
    run = run_suite(tmp_path, pytest__ini=ASYNCIO, reduction=PROGRAM, test_reduction=SUITE)
    assert (0, ["PASSED"]) == (run.status, run.of("test_reduction.py")), run.output


@pytest.mark.slow
def test_the_guides_suite_passes_on_real_processes(tmp_path: Path) -> None:
    run = run_suite(
        tmp_path,
        *("-p", "no:asyncio", "--kaleden-platform=local"),
        pytest__ini=ANYIO,
        reduction=PROGRAM,
        test_reduction=SUITE,
    )
    assert (0, ["PASSED"] * (1 + HAS_TRIO)) == (run.status, run.of("test_reduction.py")), run.output


def test_a_strangers_suite_is_short() -> None:
    assert max(len(SUITE.splitlines()), len(TRIO_SUITE.splitlines())) < 30


def test_a_suite_that_does_not_use_it_does_not_even_import_kaleden(tmp_path: Path) -> None:
    run = run_suite(tmp_path, "-p", "no:asyncio", "-p", "no:anyio", test_it=UNUSED)
    assert (0, ["PASSED"]) == (run.status, run.of("test_it.py")), run.output
