"""Docstrings of the asynchronous methods, for those that do the same in plain code."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

TIMEOUT: Final = (
    "    timeout: seconds until the call gives up and, once all is cleaned up, raises\n"
    "        `CallTimedOut`; None for no limit."
)

# Nobody but the session itself can, in its event loop.
_CLOSES: Final = r"he caller\s+(opens\s+and\s+)?closes\s+it"

_WORDS: Final = (
    ("``async with", "``with"),
    ("``async for", "``for"),
    ("AsyncSession", "Session"),
)


def mirrors(original: object) -> Callable[[F], F]:
    """Give a function the docstring of *original*, said for plain code.

    There is nothing of cancellation in it, and a line on ``timeout`` if the function takes that.
    """

    def describe(function: F) -> F:
        told = plain(inspect.getdoc(original) or "")
        if "timeout" in inspect.signature(function).parameters:
            told = with_argument(told, TIMEOUT)
        function.__doc__ = told
        return function

    return describe


def plain(text: str) -> str:
    """Say for plain code what a docstring says for asynchronous code."""
    for asynchronous, word in _WORDS:
        text = text.replace(asynchronous, word)
    sections = re.split(r"\n\n(?=\S)", text)
    return "\n\n".join(each for each in sections if not each.startswith("Cancellation:"))


def with_argument(text: str, argument: str) -> str:
    """Tell of one more argument in a docstring, after all others."""
    sections = re.split(r"\n\n(?=\S)", text)
    for number, section in enumerate(sections):
        if section.startswith("Args:"):
            sections[number] = f"{section}\n{argument}"
            return "\n\n".join(sections)

    later = (n for n, each in enumerate(sections) if each.startswith(("Returns:", "Raises:")))
    sections.insert(next(later, len(sections)), f"Args:\n{argument}")
    return "\n\n".join(sections)


def mirrors_arguments(original: type, more: str) -> Callable[[type[T]], type[T]]:
    """Put after a class's docstring what that of *original* tells of arguments and errors.

    Args:
        original: the class whose arguments it takes.
        more: the line on an argument of its own.
    """

    def describe(cls: type[T]) -> type[T]:
        told = plain(inspect.getdoc(original) or "")
        arguments = re.sub(_CLOSES, "he session opens and closes it", told[told.index("Args:") :])
        cls.__doc__ = f"{inspect.getdoc(cls)}\n\n{with_argument(arguments, more)}"
        return cls

    return describe
