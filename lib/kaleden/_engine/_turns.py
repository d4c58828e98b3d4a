"""Long work in small parts, so that others have their turn in between."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from anyio.lowlevel import checkpoint

T = TypeVar("T")
R = TypeVar("R")

PART: Final = 500
"""Steps of some microseconds each, which together take a millisecond or two."""


async def map_in_turns(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Apply *function* to each of *items*, and be a checkpoint after every few hundred of them.

    Raises:
        Exception: what *function* or the iterable raised.
    """
    results: list[R] = []
    for item in items:
        results.append(function(item))
        if len(results) % PART == 0:
            await checkpoint()
    return results
