"""Tests of `FaultProxy`."""
