"""The environment: variables for this library, paths, and the home directory."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from kaleden._errors import ConfigurationError


def exists(path: Path) -> bool:
    """Return whether a path exists, or cannot be examined, so that reading it fails."""
    try:
        return path.exists()
    except OSError:
        return True


def expand_home(path: str | os.PathLike[str]) -> Path:
    """Replace a leading ``~`` with the home directory.

    Raises:
        ConfigurationError: the home directory is unknown.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        msg = f"it is unknown which directory ~ is in {path}: write it out"
        raise ConfigurationError(msg) from error


T = TypeVar("T", int, float)


def variable(name: str) -> str | None:
    """Return a variable of the environment, or None if it is not set or empty."""
    return os.environ.get(name, "").strip() or None


def number(name: str, kind: Callable[[str], T], default: T) -> T:
    """Read a variable that is a number above 0.

    Raises:
        ConfigurationError: it is not such a number; the message names the variable.
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
