"""`Session` has the methods, arguments and documentation of `AsyncSession`.

``nox -s lint`` checks that the generated classes are fresh; this checks how they were generated.
"""

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

PAIRS = [(AsyncSession, Session), (Scope, SyncScope), (Streams, SyncStreams)]
# Public members of a blocking class that its asynchronous class does not have as a member.
ONLY_BLOCKING = {
    "close",  # for code that does not use `with`
    "error",  # an attribute of `Scope`
}
# Methods that do not wait, or that return a block which may take any time.
WITHOUT_TIMEOUT = {"describe", "scope", "statistics", "watch"}

TIMEOUT = inspect.Parameter(
    "timeout", inspect.Parameter.KEYWORD_ONLY, default=None, annotation="float | None"
)
# The result of an asynchronous method, and that of its blocking twin.
RESULTS = [
    (r"Results\[(.*?)\](?=$| \|)", r"SyncOutcomeStream[\1]"),
    (r"^AbstractAsyncContextManager\[LogStream\]$", "SyncLogStream"),
    (r"^AbstractAsyncContextManager\[None\]$", "AbstractContextManager[None]"),
    (r"^Scope$", "SyncScope"),
    (r"^Streams$", "SyncStreams"),
]
ASYNCHRONOUS = re.compile(r"Cancellation:|``async |AsyncSession|`(Scope|Streams|LogStream)\b")


def list_public(cls: type) -> dict[str, Any]:
    return {
        name: value for name, value in inspect.getmembers_static(cls) if not name.startswith("_")
    }


def list_methods() -> Iterator[Any]:
    for original, mirror in PAIRS:
        for name, value in list_public(original).items():
            if inspect.isfunction(value):
                yield pytest.param(
                    name, value, getattr(mirror, name, None), id=f"{mirror.__name__}.{name}"
                )


def translate_result(annotation: str) -> str:
    for pattern, blocking in RESULTS:
        annotation = re.sub(pattern, blocking, annotation)
    return annotation


@pytest.mark.parametrize(("original", "mirror"), PAIRS)
def test_classes_have_the_same_methods_and_properties(original: type, mirror: type) -> None:
    assert list_public(original).keys() == list_public(mirror).keys() - ONLY_BLOCKING
    for name, value in list_public(original).items():
        assert type(value) is type(list_public(mirror)[name]), name


@pytest.mark.parametrize(("name", "original", "mirror"), [*list_methods()])
def test_method_has_the_same_signature_and_a_timeout(name: str, original: Any, mirror: Any) -> None:
    expected = inspect.signature(original)
    timeout = [] if name in WITHOUT_TIMEOUT else [TIMEOUT]
    signature = inspect.signature(mirror)
    assert [*expected.parameters.values(), *timeout] == [*signature.parameters.values()]
    assert translate_result(expected.return_annotation) == signature.return_annotation


@pytest.mark.parametrize(("name", "original", "mirror"), [*list_methods()])
def test_docstring_describes_the_blocking_method(name: str, original: Any, mirror: Any) -> None:
    text = inspect.getdoc(mirror) or ""
    assert ASYNCHRONOUS.search(text) is None
    assert (name not in WITHOUT_TIMEOUT) == text.count("    timeout: seconds until the call ")
    described = re.findall(r"(?m)^    \w+: ", inspect.getdoc(original) or "no docstring")
    assert [*described] == [each for each in described if each in text]
    if "\nArgs:\n" in text:
        assert re.search(r"\nArgs:\n    \S", text)


def test_constructor_has_the_same_signature_and_a_backend() -> None:
    expected = list(inspect.signature(AsyncSession).parameters.values())
    *parameters, backend = inspect.signature(Session).parameters.values()
    assert expected == parameters
    assert ("backend", "asyncio") == (backend.name, backend.default)


def test_constructor_arguments_are_documented() -> None:
    text = inspect.getdoc(Session) or ""
    for name in inspect.signature(Session).parameters:
        assert 1 == len(re.findall(rf"^    {name}: ", text, re.MULTILINE)), name
    assert "Cancellation" not in text
    text = " ".join(text.lower().split())
    assert 2 == text.count("the session opens and closes it")
    assert "the caller" not in text


def test_constructor_passes_every_argument_on(monkeypatch: pytest.MonkeyPatch) -> None:
    names = list(inspect.signature(AsyncSession).parameters)
    given = {name: f"<{name}>" for name in names}
    passed: list[dict[str, Any]] = []

    def record(*args: Any, **kwargs: Any) -> AsyncSession:
        passed.append(dict(inspect.signature(AsyncSession).bind(*args, **kwargs).arguments))
        return AsyncSession("http://127.0.0.1:1/skaha")

    monkeypatch.setattr("kaleden._sync._generated.AsyncSession", record)
    Session(**given)  # type: ignore[arg-type]
    assert [given] == passed


def test_streams_are_iterators() -> None:
    for original, mirror in [(OutcomeStream, SyncOutcomeStream), (LogStream, SyncLogStream)]:
        assert {"receive_nowait"} == {*list_public(original)} - {*list_public(mirror)}
        assert issubclass(mirror, Iterator)


def test_classes_are_public() -> None:
    for _, mirror in PAIRS:
        assert mirror is getattr(kaleden, mirror.__name__)
