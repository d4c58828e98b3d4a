"""Tests of the embedded platform's processes."""
