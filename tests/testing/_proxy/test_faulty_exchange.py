"""Tests of the faults in one exchange, without sockets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from kaleden.testing import Fault, FaultKind, FaultPlan
from kaleden.testing._faults import FaultSchedule
from kaleden.testing._proxy._faulty_exchange import (
    Action,
    Exchange,
    Pause,
    SendToClient,
    Step,
    classify_chunk,
)

REQUEST = b"GET /skaha/v1/session HTTP/1.1\r\nhost: here\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
RESPONSE = HEAD + b"0123456789"


@define
class Seen:
    """The resulting steps: bytes for the receiver, and the other steps."""

    data: bytes = b""
    others: list[Step] = field(factory=list)


def collect(steps: Sequence[Step]) -> Seen:
    seen = Seen()
    for step in steps:
        if isinstance(step, bytes):
            assert not any(isinstance(other, Action) for other in seen.others), "after the end"
            seen.data += step
        else:
            seen.others.append(step)
    return seen


def make_exchange(*faults: Fault, seed: int = 0) -> Exchange:
    schedule = FaultSchedule(FaultPlan(faults, seed))
    return Exchange(schedule.draw("list"), schedule, Counter())


def run_exchange(exchange: Exchange, chunks: Sequence[bytes] = (RESPONSE,)) -> Seen:
    """Pass a request and a response through an exchange, until its end."""
    exchange.process_request(REQUEST)
    steps: list[Step] = []
    for chunk in chunks:
        steps += exchange.process_response(chunk)
        if any(isinstance(step, Action) for step in steps):
            break
    return collect(steps)


def test_exchange_without_faults_passes_unchanged() -> None:
    exchange = make_exchange()
    assert [REQUEST] == exchange.process_request(REQUEST)
    assert [RESPONSE] == exchange.process_response(RESPONSE)
    assert Counter() == exchange.done


@pytest.mark.parametrize(
    ("size", "passed", "actions"),
    [(0, b"", [Action.RESET]), (3, REQUEST[:3], [Action.RESET]), (10**6, REQUEST, [])],
)
def test_request_is_reset_after_given_bytes(
    size: int, passed: bytes, actions: list[Action]
) -> None:
    exchange = make_exchange(Fault("reset-before", size=size))
    seen = collect(
        [
            *exchange.process_request(REQUEST[:2]),
            *([] if size == 0 else exchange.process_request(REQUEST[2:])),
        ]
    )
    assert (passed, actions) == (seen.data, seen.others)
    assert len(actions) == exchange.done[FaultKind.RESET_BEFORE]


@pytest.mark.parametrize(
    ("trouble", "size", "passed", "action"),
    [
        ("reset-after", 0, b"", Action.RESET),
        ("reset-after", 5, RESPONSE[:5], Action.RESET),
        ("half-body", 5, RESPONSE[:5], Action.CLOSE),
        ("half-body", 0, HEAD + b"01234", Action.CLOSE),
        ("wrong-length", 0, RESPONSE.replace(b"10\r", b"11\r"), Action.CLOSE),
        ("wrong-length", 5, RESPONSE.replace(b"10\r", b"15\r"), Action.CLOSE),
        ("stall-after", 0, b"", Action.DETACH),
    ],
)
def test_response_ends_at_given_byte(
    trouble: str, size: int, passed: bytes, action: Action
) -> None:
    exchange = make_exchange(Fault(trouble, size=size))
    seen = run_exchange(exchange)
    assert (passed, [action]) == (seen.data, seen.others)
    assert {trouble: 1} == exchange.done


@pytest.mark.parametrize("trouble", ["busy", "error-before", "error-after", "html"])
def test_canned_response_is_http(trouble: str) -> None:
    exchange = make_exchange(Fault(trouble, seconds=7, status=429))
    steps = exchange.process_request(REQUEST)
    if steps == [REQUEST]:
        steps = exchange.process_response(RESPONSE)
    said, action = steps
    assert isinstance(said, SendToClient)
    assert Action.CLOSE is action
    head, _, body = said.data.partition(b"\r\n\r\n")
    assert f"content-length: {len(body)}".encode() in head
    status = {"busy": b"429", "html": b"200"}.get(trouble, b"500")
    assert head.startswith(b"HTTP/1.1 %s " % status)
    assert (trouble == "busy") == (b"retry-after: 7" in head)


def test_stalled_request_is_not_forwarded() -> None:
    assert [Action.DETACH] == make_exchange(Fault("stall")).process_request(REQUEST)


def test_delay_comes_once_before_first_byte() -> None:
    exchange = make_exchange(Fault("delay", seconds=3))
    assert [Pause(3.0), b"GE"] == exchange.process_request(b"GE")
    assert [b"T"] == exchange.process_request(b"T")
    assert {FaultKind.DELAY: 1} == exchange.done


def test_slow_response_comes_in_pieces() -> None:
    exchange = make_exchange(Fault("slow", seconds=0.5, size=4))
    assert [b"0123", Pause(0.5), b"45", Pause(0.5)] == exchange.process_response(b"012345")


def test_duplicate_response_is_sent_when_complete() -> None:
    exchange = make_exchange(Fault("duplicate"))
    assert [RESPONSE[:-1]] == exchange.process_response(RESPONSE[:-1])
    assert [RESPONSE[-1:], RESPONSE] == exchange.process_response(RESPONSE[-1:])


def test_wrong_length_ends_response_in_any_chunks() -> None:
    seen = run_exchange(make_exchange(Fault("wrong-length", size=90)), [HEAD, b"01234", b"56789"])
    assert (RESPONSE.replace(b"10\r", b"100\r"), [Action.CLOSE]) == (seen.data, seen.others)


@pytest.mark.parametrize("trouble", ["duplicate", "wrong-length"])
def test_fault_that_needs_length_skips_response_without_it(trouble: str) -> None:
    exchange = make_exchange(Fault(trouble))
    response = b"HTTP/1.1 200 OK\r\n\r\n0123456789"
    assert [response] == exchange.process_response(response)
    assert Counter() == exchange.done


def test_half_body_without_length_halves_first_chunk() -> None:
    assert b"01234" == run_exchange(make_exchange(Fault("half-body")), [b"0123456789"]).data


def test_earlier_fault_hides_later_one() -> None:
    exchange = make_exchange(Fault("html"), Fault("reset-after", size=3), Fault("busy", nth=2))
    assert RESPONSE[:3] == run_exchange(exchange).data
    assert {FaultKind.RESET_AFTER: 1} == exchange.done


CUTS = st.lists(st.integers(1, len(RESPONSE) - 1), max_size=6)


@given(
    trouble=st.sampled_from(["reset-after", "half-body", "garbage", "duplicate"]),
    size=st.integers(1, len(RESPONSE) + 5),
    cuts=CUTS,
)
def test_chunking_does_not_change_the_result(trouble: str, size: int, cuts: list[int]) -> None:
    offsets = [0, *sorted(set(cuts)), len(RESPONSE)]
    chunks = [RESPONSE[start:stop] for start, stop in pairwise(offsets)]
    whole = run_exchange(make_exchange(Fault(trouble, size=size)))
    pieces = run_exchange(make_exchange(Fault(trouble, size=size)), chunks)
    assert whole.others == pieces.others
    assert len(whole.data) == len(pieces.data)
    if trouble != "garbage":
        assert whole.data == pieces.data
        return
    for number, byte in enumerate(pieces.data):
        replaced = size <= number < size + 16
        assert (byte >= 0x80) if replaced else (byte == RESPONSE[number])


@pytest.mark.parametrize(
    ("chunk", "kind"),
    [
        (b"POST /skaha/v1/session HTTP/1.1\r\n", "create"),
        (b"GET /v1/session?view=stats HTTP/1.1\r\n", "stats"),
        (b"GET http://here:80/skaha/v1.1/session/x?view=logs HTTP/1.0\r\n", "logs"),
        (b"GET /skaha/v1/session/x?view= HTTP/1.1\r\n", "info"),
        (b"GET /skaha/v1/session/x?view=odd HTTP/1.1\r\n", "info"),
        (b"GET /skaha/availability HTTP/1.1\r\n", "other"),
        (b"GET /skaha/v1/session", "other"),
        (b"\x16\x03\x01\x02", "other"),
        (b"", "other"),
    ],
)
def test_kind_is_classified_by_request_line(chunk: bytes, kind: str) -> None:
    assert kind == classify_chunk(chunk)


def test_same_seed_draws_same_noise() -> None:
    first, same, other = (
        run_exchange(make_exchange(Fault("garbage"), seed=seed)).data for seed in (1, 1, 2)
    )
    assert first == same
    assert first != other
