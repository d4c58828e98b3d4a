"""Every example of the documentation is executed; see `docs.examples` for their format."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest

pytest.importorskip("sybil")
pytest.importorskip("anycorn")

import kaleden
from docs import examples
from kaleden._sessions._monitor import _poller
from platforms import RunningServer, local_platform
from support import HAS_TRIO

ROOT = Path(__file__).parents[2]
# The programs of this page are test suites, which tests/testing/test_plugin.py runs.
ELSEWHERE = {ROOT / "docs" / "how-to" / "test-your-own-program.md"}
PAGES = [path for path in examples.find_pages(ROOT) if path not in ELSEWHERE]
# These pages start many processes, and take 10 seconds in each mode.
LARGE = {ROOT / "docs" / "how-to" / "process-a-thousand-files.md", ROOT / "docs" / "tutorial.md"}
RUNS = [
    pytest.param(
        path,
        mode,
        id=f"{path.relative_to(ROOT / 'docs').with_suffix('')}-{mode}",
        marks=[pytest.mark.slow] * (path in LARGE),
    )
    for path in PAGES
    for mode in examples.list_modes(examples.read_page(path))
    if mode != "trio" or HAS_TRIO
]


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with local_platform() as server:
        yield server


@pytest.fixture(autouse=True)
def platform(server: RunningServer, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Configure the embedded platform in the environment; check that a page leaves no session."""
    monkeypatch.setenv("CANFAR_URL", server.url)
    monkeypatch.setenv("CANFAR_TOKEN", server.token)
    # The examples wait often, for short times.
    monkeypatch.setattr(_poller, "MIN_INTERVAL", 0.1)
    yield
    with kaleden.Session(server.url, server.token) as session:
        left = session.fetch()
        session.destroy(left)
    assert not left, "the page must end its sessions, if necessary in a hidden block"


@pytest.mark.parametrize(("path", "mode"), RUNS)
def test_page_can_be_executed(
    path: Path,
    mode: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    # An example without a backend argument runs on the backend of the mode.
    backend = "asyncio" if mode == "sync" else mode
    monkeypatch.setattr(anyio, "run", functools.partial(anyio.run, backend=backend))
    blocks = examples.select_blocks(examples.read_page(path), mode)
    record_property("examples", len(blocks))
    examples.run_page(blocks, mode)
