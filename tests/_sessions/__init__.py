"""Tests of sessions that have an owner."""
