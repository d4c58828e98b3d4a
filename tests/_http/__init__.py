"""Tests of the transports: one contract for all, and more for each."""
