"""The CI workflows call sessions of nox, and the metadata of the project agree."""

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
    pytest.skip("needs a checkout", allow_module_level=True)


def load_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def load_project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return found


def find_nox_sessions(decorator: str = r"@nox\.session.*") -> set[str]:
    """Find the names of the nox sessions that have a decorator."""
    code = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    return set(re.findall(rf"(?m)^{decorator}\n(?:@.*\n)*def (\w+)\(", code))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_has_only_read_permission(path: Path) -> None:
    workflow = load_yaml(path)
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert "permissions" not in job
        assert job["timeout-minutes"]
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"])
            # Untrusted input is passed in the environment, never interpolated into a command
            # (script injection).
            assert "${{" not in step.get("run", "")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_calls_existing_nox_sessions(path: Path) -> None:
    called = set(re.findall(r"nox -s (\w+)", path.read_text(encoding="utf-8")))
    for job in load_yaml(path)["jobs"].values():
        listed = job.get("strategy", {}).get("matrix", {}).get("session", [])
        called |= set(listed if isinstance(listed, list) else [])
    assert called
    assert set() == called - find_nox_sessions()


@pytest.mark.parametrize("path", [ROOT / ".ci" / "run", ROOT / ".github/workflows/tests.yml"])
def test_required_checks_are_tagged_ci(path: Path) -> None:
    listed = find_nox_sessions(r'@nox\.session\(tags=\["ci"\]\)')
    assert {"engines", "lint", "minimums", "pythons", "tests"} < listed
    text = path.read_text(encoding="utf-8")
    assert "nox -t ci" in text
    # The other sessions are selected by their tag, so that none can be missing.
    assert not re.search(r"nox -s (?!tests\b)\w", text)


def test_lanes_of_ci_cover_all_sessions() -> None:
    *lanes, rest = re.findall(r'(?m)^lane \w+ -k "(.*)" &$', (ROOT / ".ci/run").read_text())
    named = ["tests", *" or ".join(lanes).split(" or ")]
    assert " and ".join(f"not {name}" for name in named) == rest


def test_suite_runs_on_every_declared_python() -> None:
    [suite] = [load_yaml(path)["jobs"]["suite"] for path in WORKFLOWS if path.stem == "tests"]
    declared = re.findall(
        r"Programming Language :: Python :: (3\.\d+)",
        "\n".join(load_project()["project"]["classifiers"]),
    )
    assert suite["strategy"]["matrix"]["python"] == declared
    assert load_project()["project"]["requires-python"].startswith(f">={declared[0]}.")


def test_issue_forms_are_complete() -> None:
    for path in sorted(ROOT.glob(".github/ISSUE_TEMPLATE/*.yml")):
        form = load_yaml(path)
        if path.stem != "config":
            assert form["name"]
            assert form["description"]
            ids = [part["id"] for part in form["body"] if part["type"] != "markdown"]
            assert len(set(ids)) == len(ids) > 0


def test_citation_matches_release() -> None:
    citation = load_yaml(ROOT / "CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == kaleden.__version__
    assert citation["license"] == load_project()["project"]["license"]
    assert citation["title"] == load_project()["project"]["name"]
    assert [author["name"] for author in citation["authors"]] == [
        author["name"] for author in load_project()["project"]["authors"]
    ]
