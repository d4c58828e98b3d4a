"""Paths under home directories, which may be unknown or closed."""

from __future__ import annotations

import os
from pathlib import Path

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
