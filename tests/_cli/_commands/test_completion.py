"""``kaleden completion``."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from _cli.invocation import Caller
from kaleden._cli._parser import SHELLS


@pytest.mark.parametrize("shell", SHELLS)
def test_script_is_printed_for_each_shell(shell: str, call_alone: Caller) -> None:
    pytest.importorskip("shtab")
    result = call_alone("completion", shell)
    assert (0, "") == (result.status, result.err)
    assert all(name in result.out for name in ("kaleden", "doctor", "replicas"))


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("kaleden r", "reap rm run"),
        ("kaleden run --rep", "--replicas"),
        ("kaleden ps --vi", "--view"),
    ],
)
def test_bash_completes_commands_and_options(
    typed: str, offered: str, tmp_path: Path, call_alone: Caller
) -> None:
    pytest.importorskip("shtab")
    script = tmp_path / "script"
    script.write_text(call_alone("completion", "bash").out)
    program = (
        f"source {script}; COMP_WORDS=({typed}); COMP_CWORD={typed.count(' ')}; "
        "_shtab_kaleden; printf '%s\\n' ${COMPREPLY[@]} | sort"
    )
    result = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=False)
    assert (offered.split(), "") == (result.stdout.split(), result.stderr)


def test_missing_shtab_is_explained(monkeypatch: pytest.MonkeyPatch, call_alone: Caller) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    result = call_alone("completion", "bash")
    assert (2, "") == (result.status, result.out)
    assert "kaleden[completion]" in result.err
