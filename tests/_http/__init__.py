"""Tests of what carries requests: one contract for all, and what each can meet beside it."""
