"""``kaleden completion``: scripts for shell completion."""

from __future__ import annotations

import argparse
from typing import Any, cast

from kaleden._cli._io import SUCCESS, Output
from kaleden._cli._parser import build_parser

_FILES = {"PATH", "FILE"}


def main(options: argparse.Namespace, output: Output) -> int:
    """Print the script for a shell."""
    try:
        import shtab  # noqa: PLC0415  # of an extra
    except ImportError as error:
        raise ImportError(
            f"this requires an extra: pip install 'kaleden[completion]' ({error})"
        ) from error

    parser = build_parser()
    _mark_files(parser, shtab.FILE)
    output.write_line(shtab.complete(parser, options.shell))
    return SUCCESS


def _mark_files(parser: argparse.ArgumentParser, mark: Any) -> None:
    """Let the shell complete file names where a path is expected."""
    for action in parser._actions:  # argparse has no public way to list them.
        if action.metavar in _FILES:
            cast("Any", action).complete = mark
        choices: Any = action.choices
        for subparser in choices.values() if hasattr(choices, "values") else ():
            _mark_files(subparser, mark)
