"""The servers that contenders are measured against, in separate processes on a separate core."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import trustme
from attrs import define, field, frozen

from benchmarks import machine, payload

ROOT = Path(__file__).resolve().parent.parent

_NGINX = """
daemon off; master_process off; worker_processes 1; pid {home}/pid; error_log {home}/errors crit;
worker_rlimit_nofile 8192;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 600s; default_type {type};
  client_body_temp_path {home}/a; proxy_temp_path {home}/b; fastcgi_temp_path {home}/c;
  uwsgi_temp_path {home}/d; scgi_temp_path {home}/e;
  server {{
    listen 127.0.0.1:{port} backlog=4096{tls}
    location ~ "^{prefix}(?<id>[a-z0-9]+)$" {{ return 200 '{body}'; }}
  }}
}}
"""


@frozen
class Kind:
    """A kind of server.

    Attributes:
        tls: whether it uses TLS.
        delay: seconds until it responds.
        counts: whether it must count its requests, which only `benchmarks.tiny_server` can.
    """

    tls: bool = False
    delay: float = 0.0
    counts: bool = False

    @property
    def program(self) -> str:
        """The server program: nginx if it is installed and sufficient, else our own."""
        plain = self.delay == 0 and not self.counts
        return "nginx" if plain and shutil.which("nginx") else "tiny"


@frozen
class Server:
    """A running server."""

    kind: Kind
    url: str
    pid: int


@define
class Servers:
    """Start each kind of server when it is first needed, and stop all of them at the end."""

    home: Path
    first: bool
    _stack: ExitStack
    _running: dict[Kind, Server] = field(init=False, factory=dict[Kind, Server])

    def get(self, kind: Kind) -> Server:
        """Return a running server of this kind."""
        if kind not in self._running:
            start = _start_nginx if kind.program == "nginx" else _start_tiny_server
            self._running[kind] = self._stack.enter_context(start(kind, self.home))
            machine.pin(self._running[kind].pid, machine.SERVER_CORE, first=self.first)
        return self._running[kind]

    @property
    def cafile(self) -> Path:
        """The file with the certificate authority of the servers."""
        return self.home / "ca.pem"


@contextmanager
def open_servers(*, first: bool = False) -> Iterator[Servers]:
    """Yield an object that starts servers; stop the servers at the end.

    Args:
        first: whether the servers have real-time priority.
    """
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        home = Path(name)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(home / "ca.pem")
        issued = authority.issue_cert("127.0.0.1", "localhost")
        issued.private_key_and_cert_chain_pem.write_to_path(home / "server.pem")
        yield Servers(home, first, stack)


@contextmanager
def _start_tiny_server(kind: Kind, home: Path) -> Iterator[Server]:
    command = [sys.executable, "-m", "benchmarks.tiny_server", "--delay", str(kind.delay)]
    if kind.tls:
        command += ["--certificate", str(home / "server.pem")]
    with _start_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None  # noqa: S101 - it is piped
        yield _make_server(kind, int(process.stdout.readline()), process)


@contextmanager
def _start_nginx(kind: Kind, home: Path) -> Iterator[Server]:
    port = _find_free_port()
    certificate = f"{home}/server.pem"
    tls = f" ssl; ssl_certificate {certificate}; ssl_certificate_key {certificate};"
    config = home / f"{port}.conf"
    settings = _NGINX.format(
        home=home,
        port=port,
        tls=tls if kind.tls else ";",
        type="application/json",
        prefix=payload.PREFIX,
        body=payload.make_body("$id"),
    )
    config.write_text(settings, encoding="utf-8")
    with _start_process(["nginx", "-p", str(home), "-c", str(config)]) as process:
        _wait_for(port)
        yield _make_server(kind, port, process)


def _make_server(kind: Kind, port: int, process: subprocess.Popen[bytes]) -> Server:
    return Server(kind, f"{'https' if kind.tls else 'http'}://127.0.0.1:{port}/skaha", process.pid)


@contextmanager
def _start_process(
    command: list[str], stdin: int | None = None, stdout: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(  # noqa: S603 - our own programs
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=stdin,
        stdout=stdout,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate()


def _find_free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
    return port


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
