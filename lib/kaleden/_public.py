"""Helpers for public packages: the module names of public objects, and lazy loading."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from types import FunctionType
from typing import Any

import attrs


def publish(package: str, names: Iterable[str], namespace: Mapping[str, Any]) -> None:
    """Set ``__module__`` of public classes and functions to the public package.

    Reprs, tracebacks and pickles then show ``kaleden.Thing`` instead of the private module that
    defines it.

    Args:
        package: the package that users import.
        names: its public names.
        namespace: a mapping from these names to the objects.
    """
    private = (f"{package}._", "kaleden._")
    for name in names:
        public = namespace[name]
        if isinstance(public, type | FunctionType) and public.__module__.startswith(private):
            if isinstance(public, type) and attrs.has(public):
                # attrs looks up the types of attributes in the module that `__module__` names, so
                # resolve them before it changes.
                attrs.resolve_types(public)

            public.__module__ = package


def load_later(
    namespace: dict[str, Any], module: str, names: Iterable[str]
) -> Callable[[str], object]:
    """Return a ``__getattr__`` for a package that imports some of its names on first access.

    Args:
        namespace: the package's namespace.
        module: the module that defines the names.
        names: the names.
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
