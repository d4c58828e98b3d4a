"""Contenders' processes, and what is asked of them."""

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
    """The process of a contender, on the clients' core."""

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
            contender.command(pythons),
            cwd=ROOT,
            # Settings and logins of whoever runs this are not to be found by the contenders.
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
        """The process's number."""
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
            # An order that the process did not live to read may be in there.
            with contextlib.suppress(BrokenPipeError):
                _pipe(pipe).close()

    def ask(self, order: Mapping[str, Any], timeout: float = 1800.0) -> dict[str, Any]:
        """Have an order carried out, and give what was measured, or ``{"error": ...}``."""
        line = json.dumps({"backend": self.contender.backend, **order}).encode() + b"\n"
        try:
            _pipe(self._process.stdin).write(line)
            _pipe(self._process.stdin).flush()
        except BrokenPipeError:
            return {"error": "the process is gone"}
        answers = _pipe(self._process.stdout)
        if not select.select([answers], [], [], timeout)[0]:
            self._process.kill()
            return {"error": f"no answer in {timeout:.0f} s"}
        answer = answers.readline()
        figures: dict[str, Any] = (
            json.loads(answer) if answer else {"error": "the process has ended"}
        )
        return figures


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None  # noqa: S101 - all of them are piped
    return pipe
