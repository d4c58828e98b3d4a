"""``kaleden serve``: the embedded platform by itself."""

from __future__ import annotations

import argparse

from kaleden._commands._client import run_on
from kaleden._commands._output import Output
from kaleden._commands._status import DONE, REFUSED


def main(options: argparse.Namespace, output: Output) -> int:
    """Serve until a signal asks to stop."""
    from kaleden.local.__main__ import run  # noqa: PLC0415  # of an extra

    try:
        run_on(options.backend, run, options)
    except (RuntimeError, ValueError) as error:
        output.note(f"kaleden: {error}")
        return REFUSED
    return DONE
