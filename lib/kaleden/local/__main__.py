"""``python -m kaleden.local``: the same as ``kaleden serve``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``kaleden serve``; return its exit status."""
    # Imported by name, because `kaleden._cli` imports this package.
    commands = import_module("kaleden._cli")
    status: int = commands.main(["serve", *(sys.argv[1:] if arguments is None else arguments)])
    return status


if __name__ == "__main__":
    sys.exit(main())
