"""Every example of the documentation is executed; `docs.examples` tells how they are written."""

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
# Its programs are suites of their own, which tests/testing/test_plugin.py runs.
ELSEWHERE = {ROOT / "docs" / "how-to" / "test-your-own-program.md"}
PAGES = [path for path in examples.find_pages(ROOT) if path not in ELSEWHERE]
# These pages start many processes, and take ten seconds each way.
LARGE = {ROOT / "docs" / "how-to" / "process-a-thousand-files.md", ROOT / "docs" / "tutorial.md"}
RUNS = [
    pytest.param(
        path,
        way,
        id=f"{path.relative_to(ROOT / 'docs').with_suffix('')}-{way}",
        marks=[pytest.mark.slow] * (path in LARGE),
    )
    for path in PAGES
    for way in examples.list_modes(examples.read_page(path))
    if way != "trio" or HAS_TRIO
]


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with local_platform() as server:
        yield server


@pytest.fixture(autouse=True)
def platform(server: RunningServer, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The embedded platform, where a client without arguments finds it; a page leaves it empty."""
    monkeypatch.setenv("CANFAR_URL", server.url)
    monkeypatch.setenv("CANFAR_TOKEN", server.token)
    # The examples wait often, and never for long.
    monkeypatch.setattr(_poller, "MIN_INTERVAL", 0.1)
    yield
    with kaleden.Session(server.url, server.token) as session:
        left = session.fetch()
        session.destroy(left)
    assert not left, "the page is to end what it launched, if need be in a hidden block"


@pytest.mark.parametrize(("path", "way"), RUNS)
def test_page_can_be_executed(
    path: Path,
    way: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    # An example that names no backend is tried on each.
    backend = "asyncio" if way == "sync" else way
    monkeypatch.setattr(anyio, "run", functools.partial(anyio.run, backend=backend))
    blocks = examples.select_blocks(examples.read_page(path), way)
    record_property("examples", len(blocks))
    examples.run_page(blocks, way)
