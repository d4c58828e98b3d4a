"""Failures are data: they can be pickled, copied and converted to JSON, and stay small."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kaleden
from kaleden import Failure, FailureKind, Outcomes
from kaleden._http import TransportError
from kaleden._wire import Request, Response
from promises.loops import VirtualLoop
from support import session_on

numbers = st.none() | st.floats(0, 1e6, allow_nan=False)
failures = st.builds(
    Failure,
    key=st.text(max_size=30),
    kind=st.sampled_from(FailureKind),
    message=st.text(max_size=60),
    status=st.none() | st.integers(100, 599),
    retry_after=numbers,
    sent=st.booleans(),
    attempts=st.integers(0, 9),
    elapsed=st.floats(0, 1e6),
)


def check(failure: Failure) -> None:
    for copied in (pickle.loads(pickle.dumps(failure)), copy.deepcopy(failure)):
        assert failure == copied
    outcomes: Outcomes[Any] = Outcomes("info", [failure])
    assert [failure] == list(Outcomes.from_json(outcomes.to_json()))
    json.loads(outcomes.to_json())
    error = pickle.loads(pickle.dumps(failure.to_exception()))
    assert str(failure.to_exception()) == str(error)


def test_failure_can_be_copied_and_serialized(count_trials: Callable[[int], None]) -> None:
    examples = 0

    @settings(deadline=None)
    @given(failures)
    def search(failure: Failure) -> None:
        nonlocal examples
        examples += 1
        check(failure)

    search()
    count_trials(examples)


bodies = st.one_of(
    st.binary(max_size=3000),
    st.text(max_size=3000).map(str.encode),
    st.just(b"<html><title>" + b"long " * 1000),
    st.just(b'{"kind": "Status", "message": "' + b"m" * 5000 + b'"}'),
)
kinds = st.sampled_from(["text/plain", "text/html", "application/json", "x" * 2000, ""])
headers = st.fixed_dictionaries(
    {"content-type": kinds}, optional={"location": st.text(max_size=2000), "retry-after": st.text()}
)
responses = st.builds(
    Response, st.sampled_from([200, 204, 302, 400, 401, 404, 429, 500, 503, 999]), headers, bodies
)
errors = st.builds(
    TransportError,
    st.sampled_from([FailureKind.CONNECTION_LOST, FailureKind.PROTOCOL]),
    st.text(max_size=200),
    sent=st.booleans(),
)


@pytest.mark.parametrize("method", ["info", "logs", "destroy"])
def test_failure_of_any_response_is_small(
    virtual: VirtualLoop, count_trials: Callable[[int], None], method: str
) -> None:
    examples = 0

    @settings(max_examples=30, deadline=None)
    @given(result=responses | errors)
    def search(result: Response | TransportError) -> None:
        nonlocal examples
        examples += 1

        async def respond(_: Request) -> Response:
            if isinstance(result, TransportError):
                raise result
            return result

        async def call() -> kaleden.Outcomes[Any]:
            session, _ = session_on(respond)
            async with session:
                outcomes: kaleden.Outcomes[Any] = await getattr(session, method)("abcdefgh")
                return outcomes

        for failure in virtual.run(call).failures.values():
            check(failure)
            assert len(json.dumps(failure.message)) < 1024 or not failure.message.isascii()
            assert len(failure.message) < 800

    search()
    count_trials(examples)
