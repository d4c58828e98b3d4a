"""Tests of its processes."""
