"""Libraries that are there only if somebody installed an extra."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def needs(module: str, extra: str) -> Any:
    """Import a module of an extra, now that it is needed.

    Raises:
        ImportError: it is not installed; the message says what to install.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        library = module.partition(".")[0]
        # Something else that is missing is not for the extra to bring.
        if error.name is None or error.name.partition(".")[0] != library:
            raise

        msg = f"this needs {library}, which is not installed: pip install 'kaleden[{extra}]'"
        raise ImportError(msg, name=library) from error
