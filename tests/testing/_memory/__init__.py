"""Tests of the platform in memory."""
