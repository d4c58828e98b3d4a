"""Public names show their public place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs


def publish(package: str, names: Iterable[str], namespace: Mapping[str, Any]) -> None:
    """Let reprs, tracebacks and pickles say ``kaleden.Thing``, not the room it was built in.

    Args:
        package: the package that users import.
        names: its public names.
        namespace: where they are found.
    """
    rooms = (f"{package}._", "kaleden._")
    for name in names:
        public = namespace[name]
        if isinstance(public, type) and public.__module__.startswith(rooms):
            if attrs.has(public):
                # The types of attributes are looked up in the class's module: now, while that is
                # true.
                attrs.resolve_types(public)

            public.__module__ = package
