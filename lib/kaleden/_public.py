"""Public names show their public place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from types import FunctionType
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
        if isinstance(public, type | FunctionType) and public.__module__.startswith(rooms):
            if isinstance(public, type) and attrs.has(public):
                # The types of attributes are looked up in the class's module: now, while that is
                # true.
                attrs.resolve_types(public)

            public.__module__ = package


def load_later(
    namespace: dict[str, Any], module: str, names: Iterable[str]
) -> Callable[[str], object]:
    """Make the ``__getattr__`` of a package which loads some names when one of them is asked for.

    Args:
        namespace: the package's.
        module: the module that has the names.
        names: what it is asked for.
    """
    package: str = namespace["__name__"]

    def load(name: str) -> object:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")

        found = {each: getattr(import_module(module), each) for each in names}
        publish(package, names, found)
        namespace.update(found)
        return found[name]

    return load
