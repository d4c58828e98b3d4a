"""The reference page of the command line, generated from its parser.

``python tests/_cli/reference.py > docs/reference/command-line.md`` regenerates it.
"""

from __future__ import annotations

import argparse
import sys

from kaleden._cli import build_parser
from kaleden._cli._io import EXIT_STATUSES


def format_reference() -> str:
    """Return the page."""
    parser = build_parser()
    [commands] = [action.choices for action in parser._actions if isinstance(action.choices, dict)]
    parts = [
        "# The command line",
        parser.description or "",
        f"```text\n{EXIT_STATUSES}```",
        *(_format_command(command) for command in commands.values()),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _format_command(parser: argparse.ArgumentParser) -> str:
    rows = [
        f"| {_format_usage(action)} | {parser._get_formatter()._expand_help(action)} |"
        for action in parser._actions
        if "--help" not in action.option_strings
    ]
    table = "\n".join(["| | |", "|---|---|", *rows])
    return f"## {parser.prog}\n\n{(parser.description or '').strip()}\n\n{table}"


def _format_usage(action: argparse.Action) -> str:
    value = action.metavar or (action.dest.upper() if action.option_strings else action.dest)
    if action.choices is not None:
        value = "{" + ",".join(map(str, action.choices)) + "}"
    if not action.option_strings:
        return f"`{value}`"

    takes = "" if action.nargs == 0 else f" {value}"
    return ", ".join(f"`{option}{takes}`" for option in action.option_strings)


if __name__ == "__main__":
    sys.stdout.write(format_reference())
