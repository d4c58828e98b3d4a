"""Benchmarks of kaleden beside other clients: ``nox -s bench``, or ``python -m benchmarks``.

They measure and report, and assert nothing about speed. `docs/explanation/benchmarks.md` tells what
each scene shows, and what it does not.
"""
