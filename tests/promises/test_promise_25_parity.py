"""The two clients have the same methods, arguments and first lines of documentation."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from kaleden import AsyncSession, Scope, Session, Streams, SyncScope, SyncStreams

PAIRS = [(AsyncSession, Session), (Scope, SyncScope), (Streams, SyncStreams)]


def list_methods(cls: type) -> dict[str, Callable[..., Any]]:
    found = inspect.getmembers(cls, inspect.isfunction)
    return {name: each for name, each in found if name[0] != "_"}


@pytest.mark.parametrize(("original", "mirror"), PAIRS)
def test_signatures_and_summaries_are_the_same(
    original: type, mirror: type, count_trials: Callable[[int], None]
) -> None:
    theirs = list_methods(mirror)
    assert set() == list_methods(original).keys() - theirs.keys()
    for name, method in list_methods(original).items():
        expected = dict(inspect.signature(method).parameters)
        found = dict(inspect.signature(theirs[name]).parameters)
        if "timeout" not in expected:
            found.pop("timeout", None)
        assert list(expected) == list(found), name
        defaults = [each.default for each in expected.values()]
        assert defaults == [each.default for each in found.values()], name
        first = (inspect.getdoc(method) or "").partition("\n")[0]
        assert first
        assert first.replace("async with", "with").replace("AsyncSession", "Session") == (
            inspect.getdoc(theirs[name]) or ""
        ).partition("\n")[0].replace("AsyncSession", "Session"), name
    count_trials(len(list_methods(original)))
