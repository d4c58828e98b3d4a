"""``kaleden completion``."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from _cli.called import Caller
from kaleden._cli._parser import SHELLS


@pytest.mark.parametrize("shell", SHELLS)
def test_there_is_a_script_for_each_shell(shell: str, call_alone: Caller) -> None:
    pytest.importorskip("shtab")
    done = call_alone("completion", shell)
    assert (0, "") == (done.status, done.err)
    assert all(word in done.out for word in ("kaleden", "doctor", "replicas"))


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not here")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("kaleden r", "reap rm run"),
        ("kaleden run --rep", "--replicas"),
        ("kaleden ps --vi", "--view"),
    ],
)
def test_bash_completes(words: str, offered: str, tmp_path: Path, call_alone: Caller) -> None:
    pytest.importorskip("shtab")
    script = tmp_path / "script"
    script.write_text(call_alone("completion", "bash").out)
    program = (
        f"source {script}; COMP_WORDS=({words}); COMP_CWORD={words.count(' ')}; "
        "_shtab_kaleden; printf '%s\\n' ${COMPREPLY[@]} | sort"
    )
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=False)
    assert (offered.split(), "") == (done.stdout.split(), done.stderr)


def test_without_shtab_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, call_alone: Caller
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    done = call_alone("completion", "bash")
    assert (2, "") == (done.status, done.out)
    assert "kaleden[completion]" in done.err
