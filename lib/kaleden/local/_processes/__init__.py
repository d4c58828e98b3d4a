"""Headless sessions as processes of this machine."""
