"""Drive a peer: read calls as lines of JSON, make them, write what came of each as a line of JSON.

It runs in the peer's environment, so with the standard library only. The first line that it reads
is what the peer's clients are constructed with.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import sys
from typing import Any


class Driver:
    """Clients of a peer, made when first called, and the event loop of the asynchronous ones."""

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

    def answer(self, line: str) -> dict[str, Any]:
        try:
            return {"returned": self.call(*json.loads(line))}
        except Exception as error:
            return {"raised": type(error).__name__}


def main() -> None:
    # What a peer prints goes elsewhere.
    answers, sys.stdout = sys.stdout, sys.stderr
    with asyncio.Runner() as runner:
        driver = Driver(json.loads(sys.stdin.readline()), runner)
        for line in sys.stdin:
            # Some of what is returned are models, which are pairs of names and values.
            print(json.dumps(driver.answer(line), default=dict), file=answers, flush=True)


if __name__ == "__main__":
    main()
