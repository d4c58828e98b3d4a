"""Tests of the tools for tests: they are software, and others lean on them."""
