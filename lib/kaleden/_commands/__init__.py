"""The commands of ``kaleden``, one module each, and what they share."""

from __future__ import annotations

from kaleden._commands._main import main
from kaleden._commands._parser import build_parser

__all__ = ("build_parser", "main")
