"""The types of command-line arguments: functions that parse the text of one."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable


def make_count_parser(most: int | None = None) -> Callable[[str], int]:
    """Return a parser of whole numbers from 1 to *most*."""

    def parse(text: str) -> int:
        value = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0
        if value < 1 or (most is not None and value > most):
            ceiling = "" if most is None else f" to {most}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1{ceiling}")
        return value

    return parse


def parse_number(text: str) -> float:
    """Parse a finite number that is not negative."""
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a non-negative number")
    return value


def parse_limit(text: str) -> float | None:
    """Parse a number of seconds that may be 0; ``none`` is None, for no limit."""
    return None if text == "none" else parse_number(text)


def parse_seconds(text: str) -> float:
    """Parse a duration in seconds."""
    value = parse_number(text)
    if not value:
        raise argparse.ArgumentTypeError("must be greater than 0")
    return value


def parse_variable(text: str) -> tuple[str, str]:
    """Parse ``KEY=VALUE``, or ``KEY`` for the value in this process's environment.

    Error messages do not contain the value.
    """
    key, equals, value = text.partition("=")
    if equals:
        return key, value

    if key not in os.environ:
        raise argparse.ArgumentTypeError(f"{key!r} is not set in this environment: use {key}=VALUE")
    return key, os.environ[key]


def parse_capacity(text: str) -> float:
    value = parse_number(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is less than 1")
    return value


def parse_port(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value not in range(65536):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port number")
    return value
