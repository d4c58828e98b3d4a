"""Tests of the command line: its output and its exit statuses."""
