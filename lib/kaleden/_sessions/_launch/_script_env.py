"""Shell scripts as environment variables of sessions.

The command of a session can contain neither spaces nor ``$``. So the script is sent as base64 in an
environment variable, and the command is a line of Python that decodes and runs it.
"""

from __future__ import annotations

import base64
import re
from typing import Final

from kaleden._errors import ConfigurationError

VARIABLE: Final = "KALEDEN_BLOCK"
"""The environment variable of the session that holds the script."""

BEGIN: Final = f"exec(__import__('base64').b64decode(__import__('os').environ.pop('{VARIABLE}')))"
"""The Python code that runs the script in the variable."""

_PROGRAM: Final = """
import os, shutil
shell = shutil.which("bash") or "sh"
os.execvp(shell, [shell, "-c", {script!a}])
"""

_LONGEST_NAME: Final = 54
"""The maximum length of a name in a scope, which appends nine characters."""


def encode_script(script: str) -> str:
    """Encode a shell script as the value of an environment variable, for `BEGIN` to run."""
    program = _PROGRAM.format(script=script).encode()
    # Pad to a multiple of three bytes: their base64 has no "=", which a variable must not contain.
    return base64.b64encode(program + b"\n" * (-len(program) % 3)).decode()


def to_session_name(job_name: str) -> str:
    """Convert the name of a job to a valid name of a session."""
    plain = re.sub(r"[^a-z0-9]+", "-", job_name.lower()).strip("-")
    return plain[:_LONGEST_NAME].rstrip("-") or "parsl"


def check_blocks(init: int, least: int, most: int, parallelism: float) -> None:
    """Check that the numbers of blocks are consistent.

    Raises:
        ConfigurationError: they are not; the message gives the valid ranges.
    """
    if not (0 <= least <= most and 0 <= init <= most and most > 0):
        raise ConfigurationError(
            f"init_blocks={init}, min_blocks={least} and max_blocks={most} do not fit together: "
            "the first two go from 0 to max_blocks, which is 1 at least"
        )

    if not 0 <= parallelism <= 1:
        raise ConfigurationError(f"parallelism goes from 0 to 1, not {parallelism!r}")
