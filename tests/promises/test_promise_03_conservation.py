"""Every input has one outcome, in the order given, whatever went wrong with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kaleden
from kaleden._http import TransportError
from kaleden._wire import Request, Response
from promises.loops import Virtual
from support import data, session_id, session_object, session_on, text

LOST = TransportError(kaleden.FailureKind.CONNECTION_LOST, "the connection was reset", sent=True)

# What a request may come to; None is a good answer.
FATES: list[Response | Exception | None] = [
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


def good(request: Request) -> Response:
    if request.target == "session":
        return data([])
    if request.target.endswith(("?view=logs", "?view=events")) or request.method != "GET":
        return text("")
    return data(session_object(session_id(request)))


def server(fates: dict[str, Response | Exception | None]) -> Callable[..., Awaitable[Response]]:
    async def reply(request: Request) -> Response:
        fate = fates.get(session_id(request)) or good(request)
        if isinstance(fate, Exception):
            raise fate
        return fate

    return reply


@pytest.mark.parametrize("method", METHODS)
def test_successes_and_failures_are_all_that_was_asked_for(
    virtual: Virtual, trials: Callable[[int], None], method: str
) -> None:
    tried = 0

    @settings(max_examples=25, deadline=None)
    @given(asked=st.lists(keys, max_size=40), chance=st.randoms())
    def search(asked: list[str], chance: Any) -> None:
        nonlocal tried
        tried += 1
        session, _ = session_on(server({key: chance.choice(FATES) for key in asked}))

        async def ask() -> kaleden.Outcomes[Any]:
            async with session:
                outcomes: kaleden.Outcomes[Any] = await getattr(session, method)(asked)
                return outcomes

        outcomes = virtual.run(ask)
        distinct = list(dict.fromkeys(asked))
        assert distinct == [outcome.key for outcome in outcomes]
        assert set(distinct) == set(outcomes.successes) | set(outcomes.failures)
        assert len(distinct) == len(outcomes.successes) + len(outcomes.failures)

    search()
    trials(tried)


def test_streams_hand_on_as_many_outcomes_as_there_are_inputs(
    virtual: Virtual, trials: Callable[[int], None]
) -> None:
    asked = [f"id{number}" for number in range(20 * len(FATES))]
    fates = {key: FATES[number % len(FATES)] for number, key in enumerate(asked)}
    session, _ = session_on(server(fates))

    async def ask() -> list[str]:
        async with session, session.stream.info(asked) as results:
            return [outcome.key async for outcome in results]

    assert sorted(asked) == sorted(virtual.run(ask))
    trials(len(asked))
