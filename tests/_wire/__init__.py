"""Tests of `kaleden._wire`, the sans-I/O implementation of the Skaha API."""
