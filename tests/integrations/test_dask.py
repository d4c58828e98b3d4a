"""The Dask recipe of the guide: no worker outlives its block."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("anycorn")
pytest.importorskip("distributed")

from interruptions import list_sessions
from platforms import local_platform

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "use-with-dask.md"
FAILS = """
import kaleden
from squares import dask_on_canfar

with (
    kaleden.Session() as session,
    dask_on_canfar(session, "skaha/astroml:latest", workers=2) as client,
):
    print(len(session.fetch(status="Running")), "sessions,", len(client.nthreads()), "workers")
    raise ValueError("of the program")
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PAGE.exists(), reason="the suite runs away from its checkout"),
]


def test_error_in_the_block_ends_the_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [recipe] = re.findall(r":caption: squares.py\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    (tmp_path / "squares.py").write_text(recipe, "utf-8")
    (tmp_path / "fails.py").write_text(FAILS, "utf-8")
    with local_platform() as server:
        monkeypatch.setenv("CANFAR_URL", server.url)
        monkeypatch.setenv("CANFAR_TOKEN", server.token)
        command = [sys.executable, "fails.py"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert "2 sessions, 2 workers\n" == done.stdout, done.stderr
        assert "ValueError: of the program" in done.stderr
        assert [] == list_sessions(server)
