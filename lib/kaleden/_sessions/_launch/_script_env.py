"""How a shell script gets into a session, whose command can have no spaces and no ``$``.

It goes as base64 in a variable, and a line of Python, in which there are none, begins it.
"""

from __future__ import annotations

import base64
import re
from typing import Final

from kaleden._errors import ConfigurationError

VARIABLE: Final = "KALEDEN_BLOCK"
"""Holds what is to be run, in the session's environment."""

BEGIN: Final = f"exec(__import__('base64').b64decode(__import__('os').environ.pop('{VARIABLE}')))"
"""Python that runs what the variable holds."""

_PROGRAM: Final = """
import os, shutil
shell = shutil.which("bash") or "sh"
os.execvp(shell, [shell, "-c", {script!a}])
"""

_LONGEST_NAME: Final = 54
"""Characters of a name in a scope, which puts nine more after it."""


def encode_script(script: str) -> str:
    """Write a shell script such that an environment variable may hold it, and `BEGIN` run it."""
    program = _PROGRAM.format(script=script).encode()
    # Base64 of whole groups of three bytes has no "=" at its end, which no variable may have.
    return base64.b64encode(program + b"\n" * (-len(program) % 3)).decode()


def to_session_name(job_name: str) -> str:
    """Make a name that a session can have of one that a job has."""
    plain = re.sub(r"[^a-z0-9]+", "-", job_name.lower()).strip("-")
    return plain[:_LONGEST_NAME].rstrip("-") or "parsl"


def check_blocks(init: int, least: int, most: int, parallelism: float) -> None:
    """Refuse numbers of blocks that do not fit together.

    Raises:
        ConfigurationError: with what would fit.
    """
    if not (0 <= least <= most and 0 <= init <= most and most > 0):
        raise ConfigurationError(
            f"init_blocks={init}, min_blocks={least} and max_blocks={most} do not fit together: "
            "the first two go from 0 to max_blocks, which is 1 at least"
        )

    if not 0 <= parallelism <= 1:
        raise ConfigurationError(f"parallelism goes from 0 to 1, not {parallelism!r}")
