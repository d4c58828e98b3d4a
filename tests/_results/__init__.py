"""Tests of `kaleden._results`."""
