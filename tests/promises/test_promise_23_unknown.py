"""An unknown list element, field, status or response does not affect anything else."""

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
from promises.loops import VirtualLoop
from support import data, session_id, session_on

VALID = [RUNNING, PENDING, NOTEBOOK, OLD, OTHER_USER]
damaged_payloads = st.sampled_from(VALID).flatmap(damage_payload)
bad_responses = st.one_of(
    st.binary(max_size=60).map(lambda body: Response(200, {}, body)),
    json_values.map(data),
    st.sampled_from([b"null", b"[[[[", b'{"id":', b'{"id": NaN}', b"\xef\xbb\xbf{}"]).map(
        lambda body: Response(200, {"content-type": "application/json"}, body)
    ),
)


def run_search(
    strategy: Any, check: Callable[[Any], None], count_trials: Callable[[int], None]
) -> None:
    examples = 0

    @settings(max_examples=60, deadline=None)
    @given(strategy)
    def search(drawn: Any) -> None:
        nonlocal examples
        examples += 1
        check(drawn)

    search()
    count_trials(examples)


def test_bad_list_element_does_not_affect_others(
    virtual: VirtualLoop, count_trials: Callable[[int], None]
) -> None:
    def check(elements: list[Any]) -> None:
        async def respond_with_list(_: Request) -> Response:
            return data([RUNNING, *elements, NOTEBOOK])

        async def fetch() -> list[kaleden.SessionInfo]:
            session, _ = session_on(respond_with_list)
            async with session:
                return await session.fetch()

        payloads = [info.raw for info in virtual.run(fetch)]
        assert [RUNNING, NOTEBOOK] == [payloads[0], payloads[-1]]
        for element in elements:
            readable = isinstance(element, dict) and "id" in element
            assert (
                not readable
                or not isinstance(element["id"], str)
                or element in payloads
                or (not element["id"])
            )

    run_search(st.lists(damaged_payloads | json_values, max_size=6), check, count_trials)


def test_damaged_session_keeps_all_fields(
    virtual: VirtualLoop, count_trials: Callable[[int], None]
) -> None:
    def check(payload: dict[str, Any]) -> None:
        payload = {**payload, "id": "abc"}

        async def respond_with_session(_: Request) -> Response:
            return data(payload)

        async def call() -> kaleden.Outcomes[kaleden.SessionInfo]:
            session, _ = session_on(respond_with_session)
            async with session:
                return await session.info("abc")

        [info] = virtual.run(call).values
        assert json.loads(json.dumps(payload)) == info.raw

    run_search(damaged_payloads, check, count_trials)


def test_unreadable_response_does_not_affect_other_ids(
    virtual: VirtualLoop, count_trials: Callable[[int], None]
) -> None:
    def check(response: Response) -> None:
        async def respond_with_session(request: Request) -> Response:
            key = session_id(request)
            return response if key == "bad" else data({**RUNNING, "id": key})

        async def call() -> kaleden.Outcomes[kaleden.SessionInfo]:
            session, _ = session_on(respond_with_session)
            async with session:
                return await session.info(["a", "bad", "b"])

        outcomes = virtual.run(call)
        assert ["a", "bad", "b"] == [outcome.key for outcome in outcomes]
        assert {"a", "b"} <= set(outcomes.successes)
        for failure in outcomes.failures.values():
            assert kaleden.FailureKind.PROTOCOL is failure.kind

    run_search(bad_responses, check, count_trials)
