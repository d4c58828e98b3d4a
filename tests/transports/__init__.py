"""Tests of what carries requests: one contract for all, and what each can meet beside it."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# How busy the machine is must not decide whether a test passes.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")
