"""The contents of the published files, which ``nox -s minimums`` builds."""

from __future__ import annotations

import os
import re
import tarfile
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path, PurePosixPath

import pytest

DIST = os.environ.get("KALEDEN_DIST")
if DIST is None:
    pytest.skip("nothing was built: nox -s minimums", allow_module_level=True)

CODE = {".py", ".typed"}
ABOUT = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
KIBIBYTE = 1024


def find_built_file(pattern: str) -> Path:
    [file] = Path(DIST or "").glob(pattern)
    return file


@pytest.fixture
def wheel() -> list[str]:
    with zipfile.ZipFile(find_built_file("*.whl")) as archive:
        return archive.namelist()


@pytest.fixture
def source() -> set[str]:
    with tarfile.open(find_built_file("*.tar.gz")) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


@pytest.fixture
def metadata() -> Message:
    with zipfile.ZipFile(find_built_file("*.whl")) as archive:
        [name] = [name for name in archive.namelist() if name.endswith("dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode())


def test_wheel_has_only_package_and_plugin(wheel: list[str]) -> None:
    about = [name for name in wheel if ".dist-info/" in name]
    assert {name.partition(".dist-info/")[2] for name in about} == ABOUT
    code = [PurePosixPath(name) for name in wheel if name not in about]
    assert {path.parts[0] for path in code} == {"kaleden", "pytest_kaleden.py"}
    assert {path.suffix for path in code} == CODE
    assert "kaleden/py.typed" in wheel


def test_wheel_has_every_module(wheel: list[str], source: set[str]) -> None:
    modules = {name.removeprefix("lib/") for name in source if re.fullmatch("lib/.+[.]py", name)}
    assert modules == {name for name in wheel if name.endswith(".py")}


def test_sdist_has_sources_tests_and_docs(source: set[str]) -> None:
    expected = {
        "CHANGELOG.md",
        "CITATION.cff",
        "CONTRIBUTING.md",
        "LICENSE",
        "README.md",
        "SECURITY.md",
        "benchmarks/__main__.py",
        "docs/conf.py",
        "docs/index.md",
        "lib/kaleden/py.typed",
        "noxfile.py",
        "pyproject.toml",
        "tests/conftest.py",
        "tests/typing/results.py",
    }
    assert expected <= source
    assert not [name for name in source if "__pycache__" in name or name.endswith(".pyc")]


def test_wheel_is_small() -> None:
    assert find_built_file("*.whl").stat().st_size < 512 * KIBIBYTE


def test_metadata_describe_project(metadata: Message) -> None:
    assert metadata["Name"] == "kaleden"
    assert metadata["License-Expression"] == "MIT"
    settings = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))
    assert metadata["Requires-Python"] == settings["project"]["requires-python"]
    assert metadata["Summary"]
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])
    assert str(metadata.get_payload()).startswith("# kaleden")
    # PyPI rejects direct references (PEP 440), such as "name @ https://...".
    assert not [line for line in metadata.get_all("Requires-Dist", []) if "@" in line]


def test_sdist_has_no_traces_of_build_machine() -> None:
    with tarfile.open(find_built_file("*.tar.gz")) as archive:
        for member in archive.getmembers():
            assert member.uid == member.gid == 0, member.name
            assert not member.name.startswith(("/", ".."))
