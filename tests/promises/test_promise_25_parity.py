"""The two clients cannot drift apart: methods, arguments and documentation are compared."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from kaleden import AsyncSession, Scope, Session, Streams, SyncScope, SyncStreams

PAIRS = [(AsyncSession, Session), (Scope, SyncScope), (Streams, SyncStreams)]


def methods(cls: type) -> dict[str, Callable[..., Any]]:
    found = inspect.getmembers(cls, inspect.isfunction)
    return {name: each for name, each in found if name[0] != "_"}


@pytest.mark.parametrize(("original", "mirror"), PAIRS)
def test_both_take_the_same_and_say_the_same(
    original: type, mirror: type, trials: Callable[[int], None]
) -> None:
    theirs = methods(mirror)
    assert set() == methods(original).keys() - theirs.keys()
    for name, method in methods(original).items():
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
    trials(len(methods(original)))
