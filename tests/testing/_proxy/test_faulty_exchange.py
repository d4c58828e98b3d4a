"""Bytes of one exchange, and what comes of them: without sockets."""

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
from kaleden.testing._proxy._faulty_exchange import Act, Exchange, Pause, Say, Step, wire_kind

REQUEST = b"GET /skaha/v1/session HTTP/1.1\r\nhost: here\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
REPLY = HEAD + b"0123456789"


@define
class Seen:
    """What came out: bytes for the listener, and the rest."""

    data: bytes = b""
    others: list[Step] = field(factory=list)


def collect(steps: Sequence[Step]) -> Seen:
    seen = Seen()
    for step in steps:
        if isinstance(step, bytes):
            assert not any(isinstance(other, Act) for other in seen.others), "after the end"
            seen.data += step
        else:
            seen.others.append(step)
    return seen


def exchange(*faults: Fault, seed: int = 0) -> Exchange:
    fate = FaultSchedule(FaultPlan(faults, seed))
    return Exchange(fate.draw("list"), fate, Counter())


def answered(made: Exchange, chunks: Sequence[bytes] = (REPLY,)) -> Seen:
    """Let a reply pass, until its end."""
    made.ask(REQUEST)
    steps: list[Step] = []
    for chunk in chunks:
        steps += made.answer(chunk)
        if any(isinstance(step, Act) for step in steps):
            break
    return collect(steps)


def test_what_nothing_befalls_passes() -> None:
    made = exchange()
    assert [REQUEST] == made.ask(REQUEST)
    assert [REPLY] == made.answer(REPLY)
    assert Counter() == made.done


@pytest.mark.parametrize(
    ("size", "passed", "acts"),
    [(0, b"", [Act.RESET]), (3, REQUEST[:3], [Act.RESET]), (10**6, REQUEST, [])],
)
def test_a_request_breaks_after_so_many_bytes(size: int, passed: bytes, acts: list[Act]) -> None:
    made = exchange(Fault("reset-before", size=size))
    seen = collect([*made.ask(REQUEST[:2]), *([] if size == 0 else made.ask(REQUEST[2:]))])
    assert (passed, acts) == (seen.data, seen.others)
    assert len(acts) == made.done[FaultKind.RESET_BEFORE]


@pytest.mark.parametrize(
    ("trouble", "size", "passed", "act"),
    [
        ("reset-after", 0, b"", Act.RESET),
        ("reset-after", 5, REPLY[:5], Act.RESET),
        ("half-body", 5, REPLY[:5], Act.CLOSE),
        ("half-body", 0, HEAD + b"01234", Act.CLOSE),
        ("wrong-length", 0, REPLY.replace(b"10\r", b"11\r"), Act.CLOSE),
        ("wrong-length", 5, REPLY.replace(b"10\r", b"15\r"), Act.CLOSE),
        ("stall-after", 0, b"", Act.PART),
    ],
)
def test_a_reply_ends_where_it_is_to(trouble: str, size: int, passed: bytes, act: Act) -> None:
    made = exchange(Fault(trouble, size=size))
    seen = answered(made)
    assert (passed, [act]) == (seen.data, seen.others)
    assert {trouble: 1} == made.done


@pytest.mark.parametrize("trouble", ["busy", "error-before", "error-after", "html"])
def test_what_is_said_in_the_servers_place_is_http(trouble: str) -> None:
    made = exchange(Fault(trouble, seconds=7, status=429))
    steps = made.ask(REQUEST)
    if steps == [REQUEST]:
        steps = made.answer(REPLY)
    said, act = steps
    assert isinstance(said, Say)
    assert Act.CLOSE is act
    head, _, body = said.words.partition(b"\r\n\r\n")
    assert f"content-length: {len(body)}".encode() in head
    status = {"busy": b"429", "html": b"200"}.get(trouble, b"500")
    assert head.startswith(b"HTTP/1.1 %s " % status)
    assert (trouble == "busy") == (b"retry-after: 7" in head)


def test_a_stalled_request_does_not_pass() -> None:
    assert [Act.PART] == exchange(Fault("stall")).ask(REQUEST)


def test_a_delay_comes_before_the_first_byte_once() -> None:
    made = exchange(Fault("delay", seconds=3))
    assert [Pause(3.0), b"GE"] == made.ask(b"GE")
    assert [b"T"] == made.ask(b"T")
    assert {FaultKind.DELAY: 1} == made.done


def test_a_slow_reply_comes_in_pieces() -> None:
    made = exchange(Fault("slow", seconds=0.5, size=4))
    assert [b"0123", Pause(0.5), b"45", Pause(0.5)] == made.answer(b"012345")


def test_a_reply_that_comes_twice_comes_twice_when_it_is_whole() -> None:
    made = exchange(Fault("duplicate"))
    assert [REPLY[:-1]] == made.answer(REPLY[:-1])
    assert [REPLY[-1:], REPLY] == made.answer(REPLY[-1:])


def test_a_wrong_length_ends_the_reply_where_it_ends_in_whatever_pieces() -> None:
    seen = answered(exchange(Fault("wrong-length", size=90)), [HEAD, b"01234", b"56789"])
    assert (REPLY.replace(b"10\r", b"100\r"), [Act.CLOSE]) == (seen.data, seen.others)


@pytest.mark.parametrize("trouble", ["duplicate", "wrong-length"])
def test_what_needs_a_length_does_not_befall_what_has_none(trouble: str) -> None:
    made = exchange(Fault(trouble))
    reply = b"HTTP/1.1 200 OK\r\n\r\n0123456789"
    assert [reply] == made.answer(reply)
    assert Counter() == made.done


def test_half_of_what_has_no_length_is_half_of_what_comes_first() -> None:
    assert b"01234" == answered(exchange(Fault("half-body")), [b"0123456789"]).data


def test_what_happens_first_hides_what_would_happen_later() -> None:
    made = exchange(Fault("html"), Fault("reset-after", size=3), Fault("busy", nth=2))
    assert REPLY[:3] == answered(made).data
    assert {FaultKind.RESET_AFTER: 1} == made.done


CUTS = st.lists(st.integers(1, len(REPLY) - 1), max_size=6)


@given(
    trouble=st.sampled_from(["reset-after", "half-body", "garbage", "duplicate"]),
    size=st.integers(1, len(REPLY) + 5),
    cuts=CUTS,
)
def test_how_a_reply_is_cut_in_chunks_changes_nothing(
    trouble: str, size: int, cuts: list[int]
) -> None:
    places = [0, *sorted(set(cuts)), len(REPLY)]
    chunks = [REPLY[start:stop] for start, stop in pairwise(places)]
    whole = answered(exchange(Fault(trouble, size=size)))
    pieces = answered(exchange(Fault(trouble, size=size)), chunks)
    assert whole.others == pieces.others
    assert len(whole.data) == len(pieces.data)
    if trouble != "garbage":
        assert whole.data == pieces.data
        return
    for number, byte in enumerate(pieces.data):
        replaced = size <= number < size + 16
        assert (byte >= 0x80) if replaced else (byte == REPLY[number])


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
def test_the_first_line_tells_the_kind(chunk: bytes, kind: str) -> None:
    assert kind == wire_kind(chunk)


def test_the_same_seed_makes_the_same_noise() -> None:
    first, same, other = (
        answered(exchange(Fault("garbage"), seed=seed)).data for seed in (1, 1, 2)
    )
    assert first == same
    assert first != other
