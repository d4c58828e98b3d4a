"""Tests of the wire package: what is known of the Skaha API."""
