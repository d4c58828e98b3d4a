"""Both clients in a real Jupyter kernel, which runs cells in its event loop."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("anycorn")

from platforms import Server, local_platform

for module in ("ipykernel", "nbclient"):
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed", allow_module_level=True)

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "use-in-a-notebook.md"

EXECUTE = """if True:
    import json, sys
    import nbclient
    import nbformat.v4

    cells = [nbformat.v4.new_code_cell(cell) for cell in json.load(sys.stdin)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(
        notebook, timeout=100, iopub_timeout=100, kernel_name="python3"
    ).execute()
    texts = [output.get("text") or output.get("data", {}).get("text/plain", "") + "\\n"
             for cell in notebook.cells for output in cell.outputs
             if output.get("name") != "stderr"]
    print(json.dumps("".join(texts)))
"""

# The cells of a notebook, separated by empty lines.
PLAIN = """
import kaleden
batch = dict(image="skaha/astroml:latest", cmd="echo", args="hello", replicas=3)
session = kaleden.Session({url!r}, {token!r})

results = session.run("fits", **batch, progress=lambda statuses: print(*statuses))

print([finished.log.strip() for finished in results.values])

with session.scope() as scope:
    print(scope.wait(scope.create("fits", **batch)))
print(session.fetch())

with session.stream.info(["unknown"]) as outcomes:
    for outcome in outcomes:
        print(outcome.kind)
"""
ASYNCHRONOUS = """
import kaleden
batch = dict(image="skaha/astroml:latest", cmd="echo", args="hello", replicas=3)
session = await kaleden.AsyncSession({url!r}, {token!r}).__aenter__()

results = await session.run("fits", **batch, progress=lambda statuses: print(*statuses))

print([finished.log.strip() for finished in results.values])

async with session.scope() as scope:
    print(await scope.wait(await scope.create("fits", **batch)))
print(await session.fetch())

async with session.stream.info(["unknown"]) as outcomes:
    async for outcome in outcomes:
        print(outcome.kind)

await session.__aexit__(None, None, None);
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with local_platform() as server:
        yield server


def execute(notebook: list[str]) -> list[str]:
    """Run the cells, and return the lines that they print."""
    done = subprocess.run(
        [sys.executable, "-c", EXECUTE],
        input=json.dumps(notebook),
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    lines: list[str] = json.loads(done.stdout).splitlines()
    return lines


@pytest.mark.parametrize("cells", [PLAIN, ASYNCHRONOUS], ids=["Session", "AsyncSession"])
def test_notebook_runs_to_its_end(cells: str, server: Server) -> None:
    lines = execute(cells.format(url=server.url, token=server.token).split("\n\n"))
    assert "Completed" in lines
    assert ["['hello', 'hello', 'hello']", "<Outcomes wait: 3 ok>", "[]", "not_found"] == lines[-4:]


@pytest.mark.skipif(not GUIDE.exists(), reason="the suite runs away from its checkout")
def test_cells_of_the_guide_run(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tqdm")
    monkeypatch.setenv("CANFAR_URL", server.url)
    monkeypatch.setenv("CANFAR_TOKEN", server.token)
    cells = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    lines = execute(cells)
    assert "<Outcomes run: 3 ok>" in lines
    assert lines[-1].endswith("'hello\\n'")
