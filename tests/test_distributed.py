"""The shares of all replicas cover all items without gaps or overlaps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaleden.distributed import chunk, stripe

sizes = st.integers(0, 200)
totals = st.integers(1, 50)


@given(sizes, totals)
def test_chunks_cover_all_items_in_order_and_are_balanced(size: int, total: int) -> None:
    shares = [list(chunk(range(size), replica, total)) for replica in range(1, total + 1)]
    assert list(range(size)) == [item for share in shares for item in share]
    lengths = [len(share) for share in shares]
    assert max(lengths) - min(lengths) <= 1
    assert sorted(lengths, reverse=True) == lengths


@given(sizes, totals)
def test_stripes_cover_all_items_and_are_balanced(size: int, total: int) -> None:
    shares = [list(stripe(range(size), replica, total)) for replica in range(1, total + 1)]
    assert list(range(size)) == sorted(item for share in shares for item in share)
    assert all(list(share) == list(range(start, size, total)) for start, share in enumerate(shares))


def test_nineteen_items_are_balanced_over_ten_replicas() -> None:
    assert [2] * 9 + [1] == [len(chunk(range(19), replica, 10)) for replica in range(1, 11)]


def test_iterables_are_read_and_sequences_only_sliced() -> None:
    assert [3, 4] == chunk(iter(range(5)), 2, 2)
    assert range(500_000_000, 10**9) == chunk(range(10**9), 2, 2)
    assert [1, 3] == list(stripe(iter(range(5)), 2, 2))


def test_replica_is_read_from_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPLICA_ID", "2")
    monkeypatch.setenv("REPLICA_COUNT", "3")
    assert ([2, 3], [1, 4]) == (chunk([0, 1, 2, 3, 4]), list(stripe([0, 1, 2, 3, 4])))
    assert [0, 1, 2] == chunk([0, 1, 2], 1, 1)


def test_missing_environment_gives_one_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REPLICA_ID", raising=False)
    monkeypatch.delenv("REPLICA_COUNT", raising=False)
    assert ([0, 1, 2], [0, 1, 2]) == (chunk([0, 1, 2]), list(stripe([0, 1, 2])))


@pytest.mark.parametrize(("replica", "total"), [(0, 3), (-1, 3), (4, 3), (1, 0), (1, -2)])
def test_invalid_replica_number_is_rejected(replica: int, total: int) -> None:
    with pytest.raises(ValueError, match="numbered from 1"):
        chunk([1], replica, total)
    with pytest.raises(ValueError, match="numbered from 1"):
        stripe([1], replica, total)


def test_invalid_environment_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPLICA_ID", "two")
    with pytest.raises(ValueError, match="REPLICA_ID must be a whole number, not 'two'"):
        chunk([1])
