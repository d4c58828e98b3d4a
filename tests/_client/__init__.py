"""Tests of `AsyncSession`."""
