"""The demo: launch a dozen sessions, watch them, collect their results, clean up."""

from __future__ import annotations

from kaleden._cli._demo._run import DemoOptions, DemoResult, run

__all__ = ("DemoOptions", "DemoResult", "run")
