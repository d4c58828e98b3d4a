"""The ``kaleden`` command line."""

from __future__ import annotations

from kaleden._cli._main import main
from kaleden._cli._parser import build_parser

__all__ = ("build_parser", "main")
