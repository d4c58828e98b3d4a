"""The programs, commands and links of the README work."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest

from support import PLAIN_BACKENDS

pytest.importorskip("anycorn")

import kaleden
from _auth.certificates import Authority
from _auth.saved import document, save
from kaleden.local import LocalPlatform

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"

pytestmark = pytest.mark.skipif(not README.exists(), reason="needs a checkout")


def find_blocks(language: str) -> list[str]:
    found: list[str] = re.findall(
        rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL
    )
    return found


@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_programs_run(backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    main, *others = find_blocks("python")
    names: dict[str, Any] = {}
    code = main.replace("anyio.run(main)", f"anyio.run(main, backend={backend!r})")
    exec(compile(code, "README.md", "exec", dont_inherit=True), names)
    lines = capsys.readouterr().out.splitlines()
    assert "<Outcomes run: 10 ok>" == lines[0]
    assert [f"fits-{n} Completed hello" for n in range(1, 11)] == lines[1:11]
    assert 12 == len(lines)
    for other in others:
        exec(compile(other, "README.md", "exec", dont_inherit=True), names)

    async def run_the_others() -> None:
        async with (
            LocalPlatform() as platform,
            kaleden.AsyncSession(platform.url, platform.token) as session,
        ):
            await names["stream"](session, ["unknown"])
            with pytest.raises(kaleden.BatchError):
                await names["partial_failure"](session, ["no/id"])
            await anyio.to_thread.run_sync(names["plain"], platform.url, platform.token)

    anyio.run(run_the_others, backend=backend)
    output = capsys.readouterr().out
    assert "unknown False\nno/id invalid " in output
    assert lines[1:11] == output.splitlines()[-10:]


def test_login_methods_work(authority: Authority, home: Path) -> None:
    authority.issue().write(home / "proxy.pem")
    authority.issue().write(home / ".ssl" / "cadcproxy.pem")
    save(home, document())
    [code] = [block for block in find_blocks("python") if "def ways_to_log_in" in block]
    names: dict[str, Any] = {"kaleden": kaleden}
    exec(compile(code, "README.md", "exec", dont_inherit=True), names)
    url = "https://host.example/skaha"
    client = httpx.AsyncClient(base_url=url)
    clients = names["ways_to_log_in"](url, "token", str, httpx.BasicAuth("ada", "pw"), client)
    assert [
        "bearer token",
        "bearer tokens of a function",
        "X.509 certificate",
        "X.509 certificate",
        "httpx auth",
        "httpx client",
        "X.509 certificate",
    ] == [client.describe().credential for client in clients]


def test_ci_runs_commands_of_readme() -> None:
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    first, _, tests = find_blocks("console")
    assert first.strip() in ci
    assert tests.strip() in ci


def test_links_exist() -> None:
    text = README.read_text(encoding="utf-8")
    for link in re.findall(r"(?:\]\(|src=\")(?!https?:)([^)\"]+)", text):
        assert (ROOT / link).exists(), link
