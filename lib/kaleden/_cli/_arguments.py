"""Words of the command line that are no plain text."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable


def count(most: int | None = None) -> Callable[[str], int]:
    """Make a reader of whole numbers from 1."""

    def read(text: str) -> int:
        value = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0
        if value < 1 or (most is not None and value > most):
            ceiling = "" if most is None else f" to {most}"
            raise argparse.ArgumentTypeError(f"{text!r} is no number from 1{ceiling}")
        return value

    return read


def number(text: str) -> float:
    """Read a number that is not negative."""
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number, 0 or more")
    return value


def seconds(text: str) -> float:
    """Read a time that is to pass."""
    value = number(text)
    if not value:
        raise argparse.ArgumentTypeError("0 seconds are too few")
    return value


def variable(text: str) -> tuple[str, str]:
    """Read ``KEY=VALUE``, or ``KEY`` for a variable of this process; no message shows a value."""
    key, equals, value = text.partition("=")
    if equals:
        return key, value

    if key not in os.environ:
        raise argparse.ArgumentTypeError(f"{key!r} is not set here: write {key}=VALUE")
    return key, os.environ[key]
