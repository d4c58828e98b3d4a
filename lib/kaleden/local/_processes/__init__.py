"""Headless sessions as local processes."""
