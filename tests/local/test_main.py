"""``python -m kaleden.local`` as a separate process that receives real signals."""

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
from local.serving import find_processes
from support import FULL_IMAGE

SLEEP = {"name": "n", "image": FULL_IMAGE, "cmd": "sleep", "args": "1234"}


@contextmanager
def run_command(*arguments: str) -> Generator[tuple[subprocess.Popen[str], httpx.Client]]:
    """Run the command; yield its process and a client of the platform."""
    with subprocess.Popen(
        [sys.executable, "-m", "kaleden.local", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            output = [process.stdout.readline() for _ in range(7)]
            assert "Ctrl-C stops it, and ends the processes of all sessions.\n" == output[-1]
            url, token = (line.split()[-1] for line in output[:2])
            headers = {"Authorization": f"Bearer {token}"}
            with httpx.Client(base_url=url, headers=headers) as http:
                yield process, http
        finally:
            process.terminate()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_every_process_with_exit_status_0(backend: str, number: signal.Signals) -> None:
    pytest.importorskip(backend)
    with run_command("--backend", backend) as (process, http):
        id_ = http.post("/v1/session", data=SLEEP).text.strip()
        while http.get(f"/v1/session/{id_}").json()["status"] != "Running":
            pass
        assert find_processes(id_)
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert (0, "", "") == (process.returncode, out, err)
    assert [] == find_processes(id_)


def test_command_prints_usage_and_accepts_options(tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    with run_command("--token", "abc", "--cores", "2", "--user", "ada", "--state", state) as (
        _,
        http,
    ):
        assert "Bearer abc" == http.headers["Authorization"]
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/skaha/", str(http.base_url))
        assert [1, 2] == http.get("/v1/context").json()["cores"]["options"]
        assert "ada" == http.get("/v1/session").headers["x-vo-authenticated"]
    assert Path(state).exists()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_command_with_tls_prints_certificate_paths(backend: str) -> None:
    pytest.importorskip(backend)
    command = [sys.executable, "-m", "kaleden.local", "--tls", "--user", "ada"]
    with subprocess.Popen(
        [*command, "--backend", backend],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        printed = "".join(process.stdout.readline() for _ in range(13))
        exported = re.search(
            r"SSL_CERT_FILE=(\S+) CANFAR_URL=(\S+) CANFAR_CERTIFICATE=(\S+)", printed
        )
        assert exported is not None, printed
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


def test_port_in_use_gives_one_line_and_exit_status_2() -> None:
    with run_command() as (_, http):
        command = [sys.executable, "-m", "kaleden.local", "--port", str(http.base_url.port)]
        second = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert 2 == second.returncode
    assert re.fullmatch(r"kaleden: .*in use\n", second.stderr)


def test_invalid_state_file_gives_one_line_and_exit_status_2(
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
def test_invalid_options_are_rejected(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert 2 == caught.value.code


@pytest.mark.parametrize("extra", ["local", "testing"])
def test_import_without_extra_names_package_to_install(extra: str) -> None:
    code = f"import sys; sys.modules['anycorn'] = None; import kaleden.{extra}"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert 1 == result.returncode
    assert result.stderr.endswith(
        f"ImportError: kaleden.{extra} needs more packages: pip install 'kaleden[{extra}]'\n"
    )
