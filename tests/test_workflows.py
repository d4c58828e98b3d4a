"""What runs elsewhere calls what can be run here, and what describes the project agrees."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import kaleden

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted(ROOT.glob(".github/workflows/*.yml"))
if not WORKFLOWS:
    pytest.skip("the suite runs away from its checkout", allow_module_level=True)


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return found


def sessions(decorator: str = r"@nox\.session.*") -> set[str]:
    """The sessions of nox, by their names."""
    code = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    return set(re.findall(rf"(?m)^{decorator}\n(?:@.*\n)*def (\w+)\(", code))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_read_and_nothing_else(path: Path) -> None:
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert "permissions" not in job
        assert job["timeout-minutes"]
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"])
            # What comes from outside is given by the environment, and is never part of a command.
            assert "${{" not in step.get("run", "")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_calls_sessions_that_there_are(path: Path) -> None:
    called = set(re.findall(r"nox -s (\w+)", path.read_text(encoding="utf-8")))
    for job in read(path)["jobs"].values():
        listed = job.get("strategy", {}).get("matrix", {}).get("session", [])
        called |= set(listed if isinstance(listed, list) else [])
    assert called
    assert set() == called - sessions()


@pytest.mark.parametrize("path", [ROOT / ".ci" / "run", ROOT / ".github/workflows/tests.yml"])
def test_one_list_says_what_stops_a_landing(path: Path) -> None:
    listed = sessions(r'@nox\.session\(tags=\["ci"\]\)')
    assert {"engines", "lint", "minimums", "pythons", "tests"} < listed
    text = path.read_text(encoding="utf-8")
    assert "nox -t ci" in text
    # The other sessions of the list are not named there one by one, so that none can be missing.
    assert not re.search(r"nox -s (?!tests\b)\w", text)


def test_the_lanes_of_ci_are_the_whole_list() -> None:
    *some, rest = re.findall(r'(?m)^lane \w+ -k "(.*)" &$', (ROOT / ".ci/run").read_text())
    named = ["tests", *" or ".join(some).split(" or ")]
    assert " and ".join(f"not {name}" for name in named) == rest


def test_the_suite_runs_with_every_python_that_is_promised() -> None:
    [suite] = [read(path)["jobs"]["suite"] for path in WORKFLOWS if path.stem == "tests"]
    promised = re.findall(
        r"Programming Language :: Python :: (3\.\d+)",
        "\n".join(project()["project"]["classifiers"]),
    )
    assert suite["strategy"]["matrix"]["python"] == promised
    assert project()["project"]["requires-python"].startswith(f">={promised[0]}.")


def test_the_forms_are_whole() -> None:
    for path in sorted(ROOT.glob(".github/ISSUE_TEMPLATE/*.yml")):
        form = read(path)
        if path.stem != "config":
            assert form["name"]
            assert form["description"]
            ids = [part["id"] for part in form["body"] if part["type"] != "markdown"]
            assert len(set(ids)) == len(ids) > 0


def test_the_citation_is_of_this_release() -> None:
    citation = read(ROOT / "CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == kaleden.__version__
    assert citation["license"] == project()["project"]["license"]
    assert citation["title"] == project()["project"]["name"]
    assert [author["name"] for author in citation["authors"]] == [
        author["name"] for author in project()["project"]["authors"]
    ]
