"""Drive a peer: read calls as lines of JSON, and write their results as lines of JSON.

This runs in the peer's environment, so it uses only the standard library. The first line of input
has the arguments for the constructors of the peer's clients.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import sys
from typing import Any


class Driver:
    """The clients of a peer, made at their first call, and the event loop of asynchronous ones."""

    def __init__(self, options: dict[str, Any], runner: asyncio.Runner) -> None:
        self.options = options
        self.runner = runner
        self.clients: dict[str, Any] = {}

    def client(self, path: str) -> Any:
        if path not in self.clients:
            module, name = path.rsplit(".", 1)
            self.clients[path] = getattr(importlib.import_module(module), name)(**self.options)
        return self.clients[path]

    def call(self, path: str, method: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        returned = getattr(self.client(path), method)(*args, **kwargs)
        return self.runner.run(returned) if inspect.iscoroutine(returned) else returned

    def run_line(self, line: str) -> dict[str, Any]:
        try:
            return {"returned": self.call(*json.loads(line))}
        except Exception as error:
            return {"raised": type(error).__name__}


def main() -> None:
    # Redirect the output that a peer prints to standard error.
    results, sys.stdout = sys.stdout, sys.stderr
    with asyncio.Runner() as runner:
        driver = Driver(json.loads(sys.stdin.readline()), runner)
        for line in sys.stdin:
            # Some results are models, which `dict` converts.
            print(json.dumps(driver.run_line(line), default=dict), file=results, flush=True)


if __name__ == "__main__":
    main()
