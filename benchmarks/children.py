"""The processes of contenders, and the jobs that they run."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
from collections.abc import Mapping
from types import TracebackType
from typing import IO, Any, Self

from benchmarks import machine
from benchmarks.contenders import Contender
from benchmarks.servers import ROOT


class Child:
    """The process of a contender, on the core for clients."""

    def __init__(
        self,
        contender: Contender,
        pythons: dict[str, str],
        variables: Mapping[str, str],
        *,
        first: bool = False,
    ) -> None:
        self.contender = contender
        self._process = subprocess.Popen(  # noqa: S603 - our own programs
            contender.build_command(pythons),
            cwd=ROOT,
            # Contenders must not find the settings and logins of the user.
            env={
                "HOME": os.devnull,
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT),
                **variables,
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        machine.pin(self._process.pid, machine.CLIENT_CORE, first=first)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process, if it has not ended."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            # The buffer may hold a job that the process has not read.
            with contextlib.suppress(BrokenPipeError):
                _pipe(pipe).close()

    def run_job(self, job: Mapping[str, Any], timeout: float = 1800.0) -> dict[str, Any]:
        """Run a job in the process; return the measured figures, or ``{"error": ...}``."""
        line = json.dumps({"backend": self.contender.backend, **job}).encode() + b"\n"
        try:
            _pipe(self._process.stdin).write(line)
            _pipe(self._process.stdin).flush()
        except BrokenPipeError:
            return {"error": "the process is gone"}
        output = _pipe(self._process.stdout)
        if not select.select([output], [], [], timeout)[0]:
            self._process.kill()
            return {"error": f"no result in {timeout:.0f} s"}
        result = output.readline()
        figures: dict[str, Any] = (
            json.loads(result) if result else {"error": "the process has ended"}
        )
        return figures


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None  # noqa: S101 - all streams are pipes
    return pipe
