"""Tests of `Session`."""
