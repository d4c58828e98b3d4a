"""Benchmarks of kaleden beside other clients: ``nox -s bench``, or ``python -m benchmarks``.

They measure and report, and do not assert any speed. `docs/explanation/benchmarks.md` describes
each scene and its limits.
"""
