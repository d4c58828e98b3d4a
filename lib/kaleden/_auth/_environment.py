"""The variables of the environment that are for this library; an empty one is as none."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from kaleden._errors import ConfigurationError


def is_there(path: Path) -> bool:
    """Tell whether there is something at a place; what nobody can look at counts, and is told."""
    try:
        return path.exists()
    except OSError:
        return True


def expanded(path: str | os.PathLike[str]) -> Path:
    """Put a home directory in the place of ``~``.

    Raises:
        ConfigurationError: nobody knows it.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        msg = f"nobody knows which directory ~ is in {path}: write it out"
        raise ConfigurationError(msg) from error


T = TypeVar("T", int, float)


def variable(name: str) -> str | None:
    """Read a variable."""
    return os.environ.get(name, "").strip() or None


def number(name: str, kind: Callable[[str], T], default: T) -> T:
    """Read a variable that is a number above 0.

    Args:
        name: the variable.
        kind: `int` or `float`.
        default: what it is where the variable is not set.

    Raises:
        ConfigurationError: it is no such number; the message names the variable.
    """
    value = variable(name)
    if value is None:
        return default

    try:
        found = kind(value)
    except ValueError:
        found = None
    if found is None or not 0 < found < math.inf:
        wanted = "a whole number" if kind is int else "a number of seconds"
        raise ConfigurationError(f"{name} is {wanted} above 0, not {value!r}")

    return found
