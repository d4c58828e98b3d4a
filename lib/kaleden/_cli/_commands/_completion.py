"""``kaleden completion``: this command line, completed by a shell."""

from __future__ import annotations

import argparse
from typing import Any, cast

from kaleden._cli._io import DONE, Output
from kaleden._cli._parser import build_parser

_FILES = {"PATH", "FILE"}


def main(options: argparse.Namespace, output: Output) -> int:
    """Print the script for a shell."""
    try:
        import shtab  # noqa: PLC0415  # of an extra
    except ImportError as error:
        raise ImportError(
            f"this needs more: pip install 'kaleden[completion]' ({error})"
        ) from error

    parser = build_parser()
    _mark_files(parser, shtab.FILE)
    output.line(shtab.complete(parser, options.shell))
    return DONE


def _mark_files(parser: argparse.ArgumentParser, mark: Any) -> None:
    """Have file names offered where a path belongs."""
    for action in parser._actions:  # argparse has no other way to walk
        if action.metavar in _FILES:
            cast("Any", action).complete = mark
        choices: Any = action.choices
        for each in choices.values() if hasattr(choices, "values") else ():
            _mark_files(each, mark)
