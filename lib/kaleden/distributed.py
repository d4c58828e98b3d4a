"""Functions that split work among the replicas of a launch, for use inside a replica.

Every replica that kaleden starts has its number, from 1, in the environment variable
``REPLICA_ID``, and the number of replicas in ``REPLICA_COUNT``. From these, each replica determines
its share of the same input::

    for path in kaleden.distributed.chunk(sorted(paths)):
        reduce(path)

Outside a replica there is a single share with all items, so the same program also runs on a
workstation. This module needs only the standard library and may be copied into an image.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

__all__ = ("chunk", "stripe")

T = TypeVar("T")


def chunk(
    iterable: Iterable[T], replica: int | None = None, total: int | None = None
) -> Sequence[T]:
    """Return this replica's share as a run of consecutive items.

    The shares of all replicas, concatenated, are the input. Their sizes differ by at most one; the
    larger shares come first.

    Args:
        iterable: the complete input, in the same order in every replica. A sequence is sliced, so a
            ``range`` remains a ``range``; any other iterable is consumed.
        replica: this replica's number, from 1; by default ``REPLICA_ID``, or 1.
        total: the number of replicas; by default ``REPLICA_COUNT``, or 1.

    Returns:
        This replica's items. Empty if there are fewer items than replicas and this replica has no
        share.

    Raises:
        ValueError: *replica* is not in 1 to *total*.
    """
    replica, total = _resolve_replica(replica, total)
    items = iterable if isinstance(iterable, Sequence) else list(iterable)
    size, larger = divmod(len(items), total)
    start = (replica - 1) * size + min(replica - 1, larger)
    return items[start : start + size + (replica <= larger)]


def stripe(
    iterable: Iterable[T], replica: int | None = None, total: int | None = None
) -> Iterator[T]:
    """Return every *total*-th item, starting with the item at this replica's number.

    Adjacent items go to different replicas. This balances the load if the cost of an item grows
    along the input.

    Args:
        iterable: the complete input, in the same order in every replica. It is consumed lazily.
        replica: this replica's number, from 1; by default ``REPLICA_ID``, or 1.
        total: the number of replicas; by default ``REPLICA_COUNT``, or 1.

    Returns:
        An iterator over this replica's items.

    Raises:
        ValueError: *replica* is not in 1 to *total*.
    """
    replica, total = _resolve_replica(replica, total)
    return islice(iterable, replica - 1, None, total)


def _resolve_replica(replica: int | None, total: int | None) -> tuple[int, int]:
    replica = _read_environment("REPLICA_ID") if replica is None else replica
    total = _read_environment("REPLICA_COUNT") if total is None else total
    if not 1 <= replica <= total:
        raise ValueError(f"replicas are numbered from 1: there is no replica {replica} of {total}")

    return replica, total


def _read_environment(name: str) -> int:
    text = os.environ.get(name, "1")
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{name} must be a whole number, not {text!r}") from None
