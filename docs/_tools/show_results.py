"""Make the pictures of result tables: ``python docs/_tools/show_results.py``.

A notebook runs with an embedded platform, and headless Chromium makes a screenshot of it. The
picture of the same results in a terminal is drawn by rich. Needs ``kaleden[demo]``, ipykernel,
nbclient, nbconvert, and a program ``chromium``.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from io import StringIO
from pathlib import Path

import anyio
import anyio.to_thread
import nbclient
import nbformat.v4 as notebooks
from nbconvert import HTMLExporter
from rich.console import Console

from kaleden import Outcomes
from kaleden.local import LocalPlatform

STATIC = Path(__file__).parents[1] / "_static"
BEGIN = """
import kaleden
from kaleden._cli._demo import _replica
session = kaleden.Session({url!r}, {token!r})
batch = dict(image="skaha/astroml:latest", cmd=_replica.COMMAND, replicas=4)
batch["args"] = _replica.ARGUMENTS
batch["env"] = _replica.environment(3)
"""
RUN = "results = session.run('primes', **batch)\nresults"
WATCH = """
with session.scope() as scope, scope.watch():
    scope.create("more", **batch)
    scope.wait()
"""
KEEP = "print(results.to_json())"
BROWSER = (
    "chromium",
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--hide-scrollbars",
    "--window-size=1100,580",
)


def run_notebook(url: str, token: str) -> tuple[str, str]:
    """Run the notebook.

    Returns:
        The HTML page of the cells that show tables, and the results as JSON.
    """
    cells = [BEGIN.format(url=url, token=token), RUN, WATCH, KEEP]
    notebook = notebooks.new_notebook(cells=[notebooks.new_code_cell(c.strip()) for c in cells])
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    saved = notebook.cells.pop().outputs[0]["text"]
    del notebook.cells[0]
    page, _ = HTMLExporter(template_name="lab").from_notebook_node(notebook)
    return page, saved


def take_screenshot(page: str, picture: Path) -> None:
    """Save a screenshot of an HTML page, made by a browser."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.html"
        path.write_text(page, encoding="utf-8")
        options = (f"--user-data-dir={folder}/profile", f"--screenshot={picture}")
        subprocess.run([*BROWSER, *options, path.as_uri()], check=True, timeout=120)  # noqa: S603


def draw(saved: str, picture: Path) -> None:
    """Draw the output of ``rich.print`` for results that are saved as JSON."""
    console = Console(record=True, width=120, file=StringIO(), force_terminal=True)
    console.print(Outcomes.from_json(saved))
    drawn = console.export_svg(title="rich.print(results)")
    # The documentation loads nothing from other sites, including fonts.
    picture.write_text(re.sub(r"@font-face \{.*?\}", "", drawn, flags=re.DOTALL), encoding="utf-8")


async def main() -> None:
    """Make both pictures."""
    async with LocalPlatform() as platform:
        page, saved = await anyio.to_thread.run_sync(run_notebook, platform.url, platform.token)
    take_screenshot(page, STATIC / "notebook-table.png")
    draw(saved, STATIC / "terminal-table.svg")


if __name__ == "__main__":
    anyio.run(main)
