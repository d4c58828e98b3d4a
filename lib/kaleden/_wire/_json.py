"""JSON as it comes in: any value, of which some are objects and some arrays."""

from __future__ import annotations

from typing import Any, TypeGuard

JsonObject = dict[str, Any]
JsonArray = list[Any]


def is_object(value: Any) -> TypeGuard[JsonObject]:
    """Tell a JSON object from the rest."""
    return isinstance(value, dict)


def is_array(value: Any) -> TypeGuard[JsonArray]:
    """Tell a JSON array from the rest."""
    return isinstance(value, list)


def as_object(value: Any) -> JsonObject:
    """Return a JSON object, an empty one if *value* is something else."""
    return value if is_object(value) else {}


def as_array(value: Any) -> JsonArray:
    """Return a JSON array, an empty one if *value* is something else."""
    return value if is_array(value) else []
