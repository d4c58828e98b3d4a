"""The client for plain code cannot drift from the asynchronous one."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest

import kaleden
from kaleden import (
    AsyncSession,
    LogStream,
    OutcomeStream,
    Scope,
    Session,
    Streams,
    SyncLogStream,
    SyncOutcomeStream,
    SyncScope,
    SyncStreams,
)
from kaleden._sessions._launch._launcher import LaunchObserver

# What a scope does for its launches, and is no business of its users.
HIDDEN = {name for name, _ in inspect.getmembers(LaunchObserver, inspect.isfunction)}
PAIRS = [(AsyncSession, Session), (Scope, SyncScope), (Streams, SyncStreams)]

# What is there only in plain code, and why.
ONLY_PLAIN = {
    "close",  # for those who do not use `with`
    "error",  # an attribute of the other
}
# What does not wait, or waits for a whole block, takes no time.
UNTIMED = {"describe", "scope", "statistics", "watch"}

TIMEOUT = inspect.Parameter(
    "timeout", inspect.Parameter.KEYWORD_ONLY, default=None, annotation="float | None"
)
# What a method of the one returns, and what the same method of the other does.
RESULTS = [
    (r"^Results\[(.*)\]$", r"SyncOutcomeStream[\1]"),
    (r"^AbstractAsyncContextManager\[LogStream\]$", "SyncLogStream"),
    (r"^AbstractAsyncContextManager\[None\]$", "AbstractContextManager[None]"),
    (r"^Scope$", "SyncScope"),
    (r"^Streams$", "SyncStreams"),
]


def public(cls: type) -> dict[str, Any]:
    return {
        name: value
        for name, value in inspect.getmembers_static(cls)
        if not name.startswith("_") and name not in HIDDEN
    }


def methods() -> Iterator[Any]:
    for original, mirror in PAIRS:
        for name, value in public(original).items():
            if inspect.isfunction(value):
                yield pytest.param(
                    name, value, getattr(mirror, name, None), id=f"{mirror.__name__}.{name}"
                )


def returned(annotation: str) -> str:
    for pattern, plain in RESULTS:
        annotation = re.sub(pattern, plain, annotation)
    return annotation


def told(text: str) -> str:
    """A docstring of the asynchronous class, as it should read in plain code."""
    kept = re.sub(r"\n\nCancellation:\n(    .*\n|\n(?=    ))*    .*", "", text)
    return kept.replace("async with", "with").replace("AsyncSession", "Session")


@pytest.mark.parametrize(("original", "mirror"), PAIRS)
def test_both_have_the_same_methods_and_properties(original: type, mirror: type) -> None:
    assert public(original).keys() == public(mirror).keys() - ONLY_PLAIN
    for name, value in public(original).items():
        assert type(value) is type(public(mirror)[name]), name


@pytest.mark.parametrize(("name", "original", "mirror"), list(methods()))
def test_signatures_are_the_same_but_for_the_timeout(name: str, original: Any, mirror: Any) -> None:
    expected = inspect.signature(original)
    parameters = [*expected.parameters.values(), *([] if name in UNTIMED else [TIMEOUT])]
    signature = inspect.signature(mirror)
    assert parameters == list(signature.parameters.values())
    assert returned(expected.return_annotation) == signature.return_annotation


@pytest.mark.parametrize(("name", "original", "mirror"), list(methods()))
def test_docstrings_are_the_same_but_for_cancellation_and_the_timeout(
    name: str, original: Any, mirror: Any
) -> None:
    text = inspect.getdoc(mirror) or ""
    if name not in UNTIMED:
        line = "    timeout: seconds until the call gives up and, once all is cleaned up, raises\n"
        line += "        `CallTimedOut`; None for no limit."
        assert 1 == text.count(line)
        text = text.replace(f"\n\nArgs:\n{line}", "").replace(f"\n{line}", "")
    assert told(inspect.getdoc(original) or "no docstring") == text


def test_the_arguments_of_the_client_are_the_same_but_for_the_backend() -> None:
    expected = list(inspect.signature(AsyncSession).parameters.values())
    *parameters, backend = inspect.signature(Session).parameters.values()
    assert expected == parameters
    assert ("backend", "asyncio") == (backend.name, backend.default)


def test_the_arguments_of_the_client_are_told_of() -> None:
    text = inspect.getdoc(Session) or ""
    for name in inspect.signature(Session).parameters:
        assert 1 == len(re.findall(rf"^    {name}: ", text, re.MULTILINE)), name
    assert "Cancellation" not in text
    assert 2 == text.count("he session opens and closes it")
    assert "he caller" not in text


def test_every_argument_of_the_client_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    names = list(inspect.signature(AsyncSession).parameters)
    given = {name: f"<{name}>" for name in names}
    passed: list[dict[str, Any]] = []

    def note(*args: Any, **kwargs: Any) -> AsyncSession:
        passed.append(dict(inspect.signature(AsyncSession).bind(*args, **kwargs).arguments))
        return AsyncSession("http://127.0.0.1:1/skaha")

    monkeypatch.setattr("kaleden._sync._client.AsyncSession", note)
    Session(**given)  # type: ignore[arg-type]
    assert [given] == passed


def test_streams_are_iterators() -> None:
    for original, mirror in [(OutcomeStream, SyncOutcomeStream), (LogStream, SyncLogStream)]:
        assert {"receive_nowait"} == {*public(original)} - {*public(mirror)}
        assert issubclass(mirror, Iterator)


def test_everything_is_public() -> None:
    for _, mirror in PAIRS:
        assert mirror is getattr(kaleden, mirror.__name__)
