"""What is unknown costs nothing else: an element of a list, a field, a status, a whole reply."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import kaleden
from _wire.samples import NOTEBOOK, OLD, OTHER_USER, PENDING, RUNNING
from _wire.strategies import damage_payload, json_values
from kaleden._wire import Request, Response
from promises.loops import Virtual
from support import data, session_id, session_on

SOUND = [RUNNING, PENDING, NOTEBOOK, OLD, OTHER_USER]
damaged = st.sampled_from(SOUND).flatmap(damage_payload)
bad_replies = st.one_of(
    st.binary(max_size=60).map(lambda body: Response(200, {}, body)),
    json_values.map(data),
    st.sampled_from([b"null", b"[[[[", b'{"id":', b'{"id": NaN}', b"\xef\xbb\xbf{}"]).map(
        lambda body: Response(200, {"content-type": "application/json"}, body)
    ),
)


def search_with(strategy: Any, check: Callable[[Any], None], trials: Callable[[int], None]) -> None:
    tried = 0

    @settings(max_examples=60, deadline=None)
    @given(strategy)
    def search(drawn: Any) -> None:
        nonlocal tried
        tried += 1
        check(drawn)

    search()
    trials(tried)


def test_an_element_of_a_list_costs_no_other(
    virtual: Virtual, trials: Callable[[int], None]
) -> None:
    def check(elements: list[Any]) -> None:
        async def listed(_: Request) -> Response:
            return data([RUNNING, *elements, NOTEBOOK])

        async def fetch() -> list[kaleden.SessionInfo]:
            session, _ = session_on(listed)
            async with session:
                return await session.fetch()

        told = [info.raw for info in virtual.run(fetch)]
        assert [RUNNING, NOTEBOOK] == [told[0], told[-1]]
        for element in elements:
            readable = isinstance(element, dict) and "id" in element
            assert (
                not readable
                or not isinstance(element["id"], str)
                or element in told
                or (not element["id"])
            )

    search_with(st.lists(damaged | json_values, max_size=6), check, trials)


def test_a_session_with_nonsense_in_it_costs_no_field(
    virtual: Virtual, trials: Callable[[int], None]
) -> None:
    def check(payload: dict[str, Any]) -> None:
        payload = {**payload, "id": "abc"}

        async def described(_: Request) -> Response:
            return data(payload)

        async def ask() -> kaleden.Outcomes[kaleden.SessionInfo]:
            session, _ = session_on(described)
            async with session:
                return await session.info("abc")

        [info] = virtual.run(ask).values
        assert json.loads(json.dumps(payload)) == info.raw

    search_with(damaged, check, trials)


def test_a_reply_that_cannot_be_read_costs_no_other_id(
    virtual: Virtual, trials: Callable[[int], None]
) -> None:
    def check(reply: Response) -> None:
        async def described(request: Request) -> Response:
            key = session_id(request)
            return reply if key == "bad" else data({**RUNNING, "id": key})

        async def ask() -> kaleden.Outcomes[kaleden.SessionInfo]:
            session, _ = session_on(described)
            async with session:
                return await session.info(["a", "bad", "b"])

        outcomes = virtual.run(ask)
        assert ["a", "bad", "b"] == [outcome.key for outcome in outcomes]
        assert {"a", "b"} <= set(outcomes.successes)
        for failure in outcomes.failures.values():
            assert kaleden.FailureKind.PROTOCOL is failure.kind

    search_with(bad_replies, check, trials)
