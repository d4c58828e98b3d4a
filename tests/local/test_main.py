"""``python -m kaleden.local``, as a process of its own that gets real signals."""

from __future__ import annotations

import re
import signal
import ssl
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from kaleden.local.__main__ import main
from local.worlds import IMAGE, carrying

SLEEP = {"name": "n", "image": IMAGE, "cmd": "sleep", "args": "1234"}


@contextmanager
def running(*arguments: str) -> Generator[tuple[subprocess.Popen[str], httpx.Client]]:
    """The command, and a client of what it serves."""
    with subprocess.Popen(
        [sys.executable, "-m", "kaleden.local", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            said = [process.stdout.readline() for _ in range(7)]
            assert "Ctrl-C ends it, and every session's processes.\n" == said[-1]
            url, token = (line.split()[-1] for line in said[:2])
            headers = {"Authorization": f"Bearer {token}"}
            with httpx.Client(base_url=url, headers=headers) as http:
                yield process, http
        finally:
            process.terminate()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_every_process_and_the_status_is_0(
    backend: str, number: signal.Signals
) -> None:
    pytest.importorskip(backend)
    with running("--backend", backend) as (process, http):
        id_ = http.post("/v1/session", data=SLEEP).text.strip()
        while http.get(f"/v1/session/{id_}").json()["status"] != "Running":
            pass
        assert carrying(id_)
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert (0, "", "") == (process.returncode, out, err)
    assert [] == carrying(id_)


def test_it_says_how_to_use_it_and_takes_its_options(tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    with running("--token", "abc", "--cores", "2", "--user", "ada", "--state", state) as (_, http):
        assert "Bearer abc" == http.headers["Authorization"]
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/skaha/", str(http.base_url))
        assert [1, 2] == http.get("/v1/context").json()["cores"]["options"]
        assert "ada" == http.get("/v1/session").headers["x-vo-authenticated"]
    assert Path(state).exists()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_with_tls_it_says_whom_to_trust_and_what_to_show(backend: str) -> None:
    pytest.importorskip(backend)
    command = [sys.executable, "-m", "kaleden.local", "--tls", "--user", "ada"]
    with subprocess.Popen(
        [*command, "--backend", backend],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = "".join(process.stdout.readline() for _ in range(13))
        exported = re.search(r"SSL_CERT_FILE=(\S+) CANFAR_URL=(\S+) CANFAR_CERTIFICATE=(\S+)", said)
        assert exported is not None, said
        ca, url, certificate = exported.groups()
        context = ssl.create_default_context(cafile=ca)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/session", trust_env=False)
        context.load_cert_chain(certificate)
        assert [] == httpx.get(f"{url}/session", verify=context, trust_env=False).json()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (0, "", "") == (process.returncode, out, err)
    assert not Path(certificate).exists()


def test_a_port_that_is_taken_is_one_line_and_status_2() -> None:
    with running() as (_, http):
        command = [sys.executable, "-m", "kaleden.local", "--port", str(http.base_url.port)]
        second = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert 2 == second.returncode
    assert re.fullmatch(r"kaleden: .*in use\n", second.stderr)


def test_a_state_that_is_none_is_one_line_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "state"
    state.write_text("no database " * 100)
    assert 2 == main(["--state", str(state)])
    assert re.fullmatch(r"kaleden: .* is not a state file .*\n", capsys.readouterr().err)


@pytest.mark.parametrize(
    "arguments",
    [["--port", "65536"], ["--port", "x"], ["--cores", "0.9"], ["--ram", "-1"], ["--cores", "inf"]],
)
def test_bad_options_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert 2 == caught.value.code


@pytest.mark.parametrize("extra", ["local", "testing"])
def test_without_its_packages_the_import_says_what_to_install(extra: str) -> None:
    code = f"import sys; sys.modules['anycorn'] = None; import kaleden.{extra}"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert 1 == result.returncode
    assert result.stderr.endswith(
        f"ImportError: kaleden.{extra} needs more packages: pip install 'kaleden[{extra}]'\n"
    )
