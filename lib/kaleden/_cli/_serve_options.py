"""The options of the embedded platform run by itself: told here without its packages."""

from __future__ import annotations

import argparse
import math


def add_serve_options(parser: argparse.ArgumentParser) -> None:
    """Add them to a parser."""
    add = parser.add_argument
    add("--port", type=_port, default=0, help="on 127.0.0.1 (default: a free one)")
    add("--token", help="the bearer token to accept (default: a random one)")
    add("--tls", action="store_true", help="serve https, and take certificates too")
    add("--state", metavar="FILE", help="keep the sessions in this SQLite file")
    add(
        "--cores",
        type=_capacity,
        help="capacity in cores, at least 1 (default: 16 times what there is)",
    )
    add("--ram", type=_capacity, help="capacity in GiB, at least 1 (default: 4 for each core)")
    add("--user", default="local", help="the name of the user (default: %(default)s)")
    add("--max-interactive-sessions", type=int, default=5, metavar="N", help="default: %(default)s")
    add("--backend", choices=("asyncio", "trio"), default="asyncio", help="default: %(default)s")
    add("--json", action="store_true", help="print where it is as one line of JSON")


def _capacity(text: str) -> float:
    value = float(text)
    if not 1 <= value < math.inf:
        raise ValueError(text)
    return value


def _port(text: str) -> int:
    value = int(text)
    if value not in range(65536):
        raise ValueError(text)
    return value
