"""Tests of waiting and following."""
