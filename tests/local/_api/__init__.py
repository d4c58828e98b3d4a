"""Tests of the embedded platform's API."""
