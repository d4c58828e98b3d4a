"""Entry point of the command line: ``kaleden`` or ``python -m kaleden``."""

from __future__ import annotations

import sys

from kaleden._cli import main

if __name__ == "__main__":
    sys.exit(main())
