"""Every input has one outcome, in the order of the inputs, whatever faults occur."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kaleden
from kaleden._http import TransportError
from kaleden._wire import Request, Response
from promises.loops import VirtualLoop
from support import data, session_id, session_object, session_on, text

LOST = TransportError(kaleden.FailureKind.CONNECTION_LOST, "the connection was reset", sent=True)

# The possible results of a request; None is a valid response.
RESULTS: list[Response | Exception | None] = [
    None,
    LOST,
    OSError("no more files"),
    RuntimeError("a bug"),
    ValueError("another one"),
    ExceptionGroup("several", [KeyError("a"), TypeError("b")]),
    RecursionError("too deep"),
    text("", 204),
    text("", 301, location="https://elsewhere.example/"),
    text("bad request", 400),
    text("session not found", 404),
    text("unexpected exception", 500),
    Response(200, {"content-type": "application/json"}, b"{"),
    Response(200, {"content-type": "application/json"}, b"\xff\x00"),
    Response(200, {"content-type": "text/html"}, b"<html>Sign in</html>"),
    Response(999, {}, b""),
    data([]),
    data(session_object("somebody-elses")),
]
keys = st.one_of(
    st.integers(0, 30).map("id{}".format), st.sampled_from(["", "a/b", "é", "x" * 300])
)
METHODS = ["info", "logs", "events", "renew", "destroy"]


def make_success(request: Request) -> Response:
    if request.target == "session":
        return data([])
    if request.target.endswith(("?view=logs", "?view=events")) or request.method != "GET":
        return text("")
    return data(session_object(session_id(request)))


def make_server(
    results: dict[str, Response | Exception | None],
) -> Callable[..., Awaitable[Response]]:
    async def respond(request: Request) -> Response:
        result = results.get(session_id(request)) or make_success(request)
        if isinstance(result, Exception):
            raise result
        return result

    return respond


@pytest.mark.parametrize("method", METHODS)
def test_successes_and_failures_cover_all_inputs(
    virtual: VirtualLoop, count_trials: Callable[[int], None], method: str
) -> None:
    examples = 0

    @settings(max_examples=25, deadline=None)
    @given(ids=st.lists(keys, max_size=40), chance=st.randoms())
    def search(ids: list[str], chance: Any) -> None:
        nonlocal examples
        examples += 1
        session, _ = session_on(make_server({key: chance.choice(RESULTS) for key in ids}))

        async def call() -> kaleden.Outcomes[Any]:
            async with session:
                outcomes: kaleden.Outcomes[Any] = await getattr(session, method)(ids)
                return outcomes

        outcomes = virtual.run(call)
        distinct = list(dict.fromkeys(ids))
        assert distinct == [outcome.key for outcome in outcomes]
        assert set(distinct) == set(outcomes.successes) | set(outcomes.failures)
        assert len(distinct) == len(outcomes.successes) + len(outcomes.failures)

    search()
    count_trials(examples)


def test_stream_yields_one_outcome_per_input(
    virtual: VirtualLoop, count_trials: Callable[[int], None]
) -> None:
    ids = [f"id{number}" for number in range(20 * len(RESULTS))]
    results = {key: RESULTS[number % len(RESULTS)] for number, key in enumerate(ids)}
    session, _ = session_on(make_server(results))

    async def call() -> list[str]:
        async with session, session.stream.info(ids) as outcomes:
            return [outcome.key async for outcome in outcomes]

    assert sorted(ids) == sorted(virtual.run(call))
    count_trials(len(ids))
