"""Tests of launches."""
