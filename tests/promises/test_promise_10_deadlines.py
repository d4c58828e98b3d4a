"""Deadlines hold end to end, and what ends a call before its deadline is the last real error."""

from __future__ import annotations

import random
from collections.abc import Callable

import anyio
import pytest

from kaleden import Failure, FailureKind, RetryPolicy, Unavailable
from kaleden._http import TransportError
from kaleden._retry import LAST_WORD
from kaleden._wire import Request, Response
from promises.loops import Virtual
from support import session_on, stalled, text

POLICY = RetryPolicy(attempts=1000, total=10_000, reserve=1000, seed=10)


async def busy(_: Request) -> Response:
    return text("come back later", 503)


async def away(_: Request) -> Response:
    return text("come back tomorrow", 503, **{"retry-after": "3600"})


async def lost(_: Request) -> Response:
    await anyio.sleep(0.7)
    raise TransportError(FailureKind.CONNECTION_LOST, "the connection was reset", sent=True)


WORDS = {busy: "come back later", away: "come back tomorrow", lost: "the connection was reset"}


@pytest.mark.parametrize("reply", WORDS, ids=lambda reply: reply.__name__)
def test_a_server_that_fails_is_told_of_before_the_deadline(
    virtual: Virtual,
    trials: Callable[[int], None],
    reply: Callable[[Request], object],
) -> None:
    chance = random.Random(10)
    deadlines = [chance.uniform(1, 100) for _ in range(50)]

    async def ask(seconds: float) -> None:
        session, _ = session_on(reply, retry=POLICY)  # type: ignore[arg-type]
        async with session:
            with anyio.fail_after(seconds):
                [outcome] = await session.info("mine")
            assert isinstance(outcome, Failure)
            assert WORDS[reply] in outcome.message  # type: ignore[index]
            assert anyio.current_time() <= seconds

    for seconds in deadlines:
        virtual.run(ask, seconds)
    trials(len(deadlines))


def test_a_repetition_without_an_answer_ends_with_the_error_before_it(virtual: Virtual) -> None:
    async def first_busy(request: Request) -> Response:
        return await (busy if len(transport.requests) == 1 else stalled)(request)

    session, transport = session_on(first_busy, retry=POLICY, timeout=1000)

    async def ask() -> None:
        async with session:
            with pytest.raises(Unavailable, match="come back later") as caught:
                with anyio.fail_after(100):
                    await session.fetch()
            assert 2 == caught.value.failure.attempts
            assert anyio.current_time() <= 100

    virtual.run(ask)


@pytest.mark.parametrize("seconds", [0.0, LAST_WORD / 2, 5.0, 29.0])
def test_without_any_answer_the_deadline_is_kept_all_the_same(
    virtual: Virtual, seconds: float
) -> None:
    async def ask() -> None:
        session, transport = session_on(stalled, retry=POLICY, concurrency=4)
        async with session:
            with pytest.raises(TimeoutError):
                with anyio.fail_after(seconds):
                    await session.info([f"id{number}" for number in range(100)])
            assert seconds == anyio.current_time()
            assert (0, 0) == (transport.in_flight, session.statistics().gate.in_flight)

    virtual.run(ask)
