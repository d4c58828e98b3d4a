"""Tests of its API."""
