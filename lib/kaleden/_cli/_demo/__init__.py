"""``kaleden demo``: a dozen sessions launched at once, watched, read and ended."""

from __future__ import annotations

from kaleden._cli._demo._run import DemoOptions, DemoResult, run

__all__ = ("DemoOptions", "DemoResult", "run")
