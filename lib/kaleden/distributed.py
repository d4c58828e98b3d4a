"""Split work among the replicas of a launch, from inside a replica.

Every replica that kaleden starts finds its number in ``REPLICA_ID``, from 1, and how many there are
in ``REPLICA_COUNT``. With these, each takes its own share of the same input::

    for path in kaleden.distributed.chunk(sorted(paths)):
        reduce(path)

Outside a replica there is one share, the whole, so that the same program runs on a desk. This
module needs nothing but the standard library and may be copied into an image.
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
    """Take this replica's run of consecutive items.

    The shares of all replicas, one after the other, are the whole; their sizes differ by at most
    one, the larger ones first.

    Args:
        iterable: the whole input, in the same order in every replica. A sequence is only sliced, so
            a ``range`` stays one; anything else is read to its end.
        replica: this replica's number, from 1; by default ``REPLICA_ID``, or 1.
        total: how many replicas there are; by default ``REPLICA_COUNT``, or 1.

    Returns:
        This replica's items; empty if there are fewer items than replicas and none is left for it.

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
    """Take every *total*-th item, beginning with this replica's own.

    Neighbours go to different replicas, which evens out work whose cost grows along the input.

    Args:
        iterable: the whole input, in the same order in every replica; read as the result is.
        replica: this replica's number, from 1; by default ``REPLICA_ID``, or 1.
        total: how many replicas there are; by default ``REPLICA_COUNT``, or 1.

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
        raise ValueError(f"{name} is to be a whole number, and is {text!r}") from None
