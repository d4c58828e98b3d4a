"""The response parser: accepted and refused responses, bounds, and random bytes."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kaleden import FailureKind
from kaleden._http import TransportError
from kaleden._http._h1._response_parser import (
    MAX_HEAD,
    MAX_HEADERS,
    MAX_INTERIM,
    Headers,
    ResponseParser,
)

OK = b"HTTP/1.1 200 OK\r\n"
PLAIN = OK + b"Content-Type: application/json\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nhel\r\n2\r\nlo\r\n0\r\nT: x\r\n\r\n"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"


def read(
    pieces: Iterable[bytes], *, max_body: int = 1000, bodiless: bool = False
) -> ResponseParser:
    reply = ResponseParser(max_body, bodiless=bodiless)
    for piece in pieces:
        reply.feed(piece)
    return reply


def refused(pieces: Iterable[bytes], max_body: int = 1000) -> TransportError:
    with pytest.raises(TransportError) as caught:
        reply = read(pieces, max_body=max_body)
        assert not reply.complete
        reply.end()
    assert caught.value.sent
    return caught.value


@pytest.mark.parametrize("raw", [PLAIN, CHUNKED, INTERIM + PLAIN, b"\r\n" + PLAIN])
def test_response_is_parsed_in_any_pieces(raw: bytes) -> None:
    for cut in range(len(raw) + 1):
        reply = read([raw[:cut], raw[cut:]] if 0 < cut < len(raw) else [raw])
        assert (True, True, 200) == (reply.complete, reply.keep, reply.status)
        assert b"hello" == reply.take_body()
    reply = read(raw[i : i + 1] for i in range(len(raw)))
    assert (True, b"hello") == (reply.complete, reply.take_body())


@pytest.mark.parametrize("raw", [PLAIN, CHUNKED, INTERIM + PLAIN])
def test_end_within_a_response_is_a_lost_connection(raw: bytes) -> None:
    for cut in range(len(raw)):
        pieces = [raw[:cut]] if cut else []
        assert FailureKind.CONNECTION_LOST is refused(pieces).kind


@pytest.mark.parametrize(
    ("raw", "keep", "body"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", True, b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 50\r\n\r\n", True, b""),
        (OK + b"Content-Length: 0\r\n\r\n", True, b""),
        (b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", True, b""),
        (OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nhi", False, b"hi"),
        (OK + b"Connection: Close\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", False, b""),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", False, b"hi"),
        (OK + b"TRANSFER-ENCODING: Chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", True, b"hi"),
    ],
)
def test_response_ends_and_keeps_its_connection_as_framed(
    raw: bytes, keep: bool, body: bytes
) -> None:
    reply = read([raw])
    assert (True, keep, body) == (reply.complete, reply.keep, reply.take_body())


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_body_without_a_length_ends_with_its_connection(version: bytes) -> None:
    reply = read([b"HTTP/" + version + b" 200 OK\r\nContent-Type: text/plain\r\n\r\nhel", b"lo"])
    assert not reply.complete
    reply.end()
    assert (True, False, b"hello") == (reply.complete, reply.keep, reply.take_body())


def test_response_to_head_has_no_body() -> None:
    reply = read([OK + b"Content-Length: 5\r\n\r\n"], bodiless=True)
    assert (True, True, b"") == (reply.complete, reply.keep, reply.take_body())
    with pytest.raises(TransportError, match="more came"):
        read([PLAIN], bodiless=True)


def chunked(rest: bytes) -> bytes:
    return OK + b"Transfer-Encoding: chunked\r\n\r\n" + rest


@pytest.mark.parametrize(
    "raw",
    [
        # Two lengths, or a length and chunks: two parsers could see two responses.
        OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        OK + b"Content-Length: 5, 6\r\n\r\nhello!",
        OK + b"Content-Length: +5\r\n\r\nhello",
        OK + b"Content-Length: -5\r\n\r\nhello",
        OK + b"Content-Length: 0x5\r\n\r\nhello",
        OK + b"Content-Length: 5 5\r\n\r\nhello",
        OK + b"Content-Length: \r\n\r\nhello",
        OK + b"Content-Length: " + b"9" * 30 + b"\r\n\r\nhello",
        # Lines that do not end as they must.
        b"HTTP/1.1 200 OK\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 O\nK\r\nContent-Length: 5\r\n\r\nhello",
        OK + b"A: b\nContent-Length: 5\r\n\r\nhello",
        OK + b"Content-Length: 5\r\n\nhello",
        OK + b"Content-Length: 5\n\nhello",
        OK + b"A: b\rContent-Length: 5\r\n\r\nhello",
        # Headers that are folded, or no headers.
        OK + b"A: b\r\n c\r\nContent-Length: 5\r\n\r\nhello",
        OK + b"A: b\r\n\tc\r\nContent-Length: 5\r\n\r\nhello",
        OK + b" A: b\r\nContent-Length: 5\r\n\r\nhello",
        OK + b"A : b\r\nContent-Length: 5\r\n\r\nhello",
        OK + b": b\r\nContent-Length: 5\r\n\r\nhello",
        OK + b"A\x00: b\r\nContent-Length: 5\r\n\r\nhello",
        OK + b"A: \x00\r\nContent-Length: 5\r\n\r\nhello",
        OK + b"no colon\r\nContent-Length: 5\r\n\r\nhello",
        # Chunks.
        chunked(b"5\nhello\r\n0\r\n\r\n"),
        chunked(b"5\r\nhello\n0\r\n\r\n"),
        chunked(b"5\r\nhello!\r\n0\r\n\r\n"),
        chunked(b"0x5\r\nhello\r\n0\r\n\r\n"),
        chunked(b"-5\r\nhello\r\n0\r\n\r\n"),
        chunked(b"5 \r\nhello\r\n0\r\n\r\n"),
        chunked(b"\r\nhello\r\n0\r\n\r\n"),
        chunked(b"5;\nx\r\nhello\r\n0\r\n\r\n"),
        chunked(b"f" * 20 + b"\r\nhello\r\n0\r\n\r\n"),
        chunked(b"0\r\nA: b\n\r\n"),
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        # A response that was not asked for.
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/2.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/0.9 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 20 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 2000 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 -20 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x15\x03\x01\x00\x02\x02P",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        # More than the response.
        PLAIN + b"x",
        PLAIN + PLAIN,
        CHUNKED + b"0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nhi!",
    ],
)
def test_malformed_response_is_refused(raw: bytes) -> None:
    assert FailureKind.PROTOCOL is refused([raw]).kind
    by_bytes = refused(raw[i : i + 1] for i in range(len(raw)))
    assert FailureKind.PROTOCOL is by_bytes.kind


def test_coding_that_hides_the_end_is_refused() -> None:
    hidden = OK + b"Transfer-Encoding: gzip\r\n\r\nhello"
    assert FailureKind.CONNECTION_LOST is refused([hidden]).kind


def test_body_may_be_as_long_as_its_bound_and_no_longer() -> None:
    whole = OK + b"Content-Length: 5\r\n\r\nhello"
    assert b"hello" == read([whole], max_body=5).take_body()
    assert "longer than 4 bytes" in str(refused([whole], max_body=4))
    assert "longer than 4 bytes" in str(refused([CHUNKED], max_body=4))
    assert "longer than 4 bytes" in str(refused([OK + b"\r\nhel", b"lo"], max_body=4))


def test_head_may_be_as_long_as_its_bound_and_no_longer() -> None:
    def head(length: int) -> bytes:
        lines = b"Content-Length: 0\r\nA: \r\n"
        return OK + b"Content-Length: 0\r\nA: " + b"x" * (length - len(lines)) + b"\r\n\r\n"

    assert read([head(MAX_HEAD)]).complete
    assert "head is longer" in str(refused([head(MAX_HEAD + 1)]))
    pieces = (b"x" * 1000 for _ in range(10**6))
    assert "head is longer" in str(refused([OK + b"A: ", *(next(pieces) for _ in range(70))]))


def test_head_has_no_more_lines_than_its_bound() -> None:
    lines = [b"A: b\r\n"] * (MAX_HEADERS - 1)
    assert read([OK + b"Content-Length: 0\r\n", *lines, b"\r\n"]).complete
    assert "headers" in str(refused([OK + b"Content-Length: 0\r\n", *lines, b"A: b\r\n\r\n"]))


def test_interim_responses_are_bounded() -> None:
    assert read([b"HTTP/1.1 102 Wait\r\n\r\n" * MAX_INTERIM + PLAIN]).complete
    endless = [b"HTTP/1.1 102 Wait\r\n\r\n"] * (MAX_INTERIM + 1)
    assert "interim" in str(refused(endless))


@pytest.mark.parametrize(
    "piece", [b"1;" + b"a" * 3000 + b"\r\nx\r\n", b"0\r\nT: " + b"x" * 100_000, b"1\r\nx\r\n"]
)
def test_framing_is_bounded(piece: bytes) -> None:
    reply = ResponseParser(1_000_000)
    reply.feed(chunked(b""))
    with pytest.raises(TransportError, match=r"framing|longer"):
        for _ in range(1_000_001):
            reply.feed(piece)


@pytest.mark.parametrize("opening", [b"0\r\nT: ", b"1;a="])
def test_framing_is_bounded_after_much_content(opening: bytes) -> None:
    reply = ResponseParser(100_000_000)
    reply.feed(chunked(b""))
    content = b"x" * 1_000_000
    for _ in range(50):
        reply.feed(b"%x\r\n%b\r\n" % (len(content), content))
    reply.feed(opening)
    fed = 0
    with pytest.raises(TransportError, match="framing"):
        while fed < 10 * MAX_HEAD:
            fed += 1000
            reply.feed(b"x" * 1000)
    assert MAX_HEAD < fed


def test_white_space_around_a_value_is_removed() -> None:
    lines = b"A: \tb c \t\r\nTransfer-Encoding: chunked \r\nEmpty: \t \r\n\r\n"
    reply = read([OK + lines + b"2\r\nok\r\n0\r\n\r\n"])
    assert [b"b c", b"chunked", b""] == [value for _, value in reply.headers]
    assert (b"ok", True) == (reply.take_body(), reply.keep)


def test_headers_ignore_case_and_hide_values() -> None:
    headers = Headers([(b"Set-Cookie", b"a=secret"), (b"X", b"1"), (b"x", b"2"), (b"L", b"\xe9")])
    assert ("a=secret", "1, 2", "\xe9") == (headers["set-cookie"], headers["X"], headers.get("l"))
    assert (None, 3) == (headers.get("absent"), len(headers))
    assert {"set-cookie": "a=secret", "x": "1, 2", "l": "\xe9"} == headers
    assert "<Headers set-cookie, x, l>" == repr(headers)


def ends_well(raw: bytes, cuts: Iterable[int]) -> bool:
    """Parse *raw* in pieces; return whether it is a response. Other errors are raised."""
    positions = sorted({0, len(raw), *(cut % (len(raw) + 1) for cut in cuts)})
    reply = ResponseParser(10_000)
    try:
        for start, stop in pairwise(positions):
            reply.feed(raw[start:stop])
        if not reply.complete:
            reply.end()
    except TransportError:
        return False
    assert 100 <= reply.status <= 999
    assert isinstance(dict(Headers(reply.headers)), dict)
    return len(reply.take_body()) <= 10_000


cuts = st.lists(st.integers(min_value=0), max_size=4)


@given(st.binary(max_size=300), cuts)
@example(b"", [])
def test_any_bytes_are_a_response_or_an_error(raw: bytes, cuts: list[int]) -> None:
    ends_well(raw, cuts)


PARTS = [
    *(line + b"\r\n" for line in (PLAIN + b"\r\n" + CHUNKED + INTERIM).split(b"\r\n")),
    *(b"\r", b"\n", b" ", b"\t", b"\x00", b":", b";", b",", b"\xff", b"0", b"f" * 17, b"chunked"),
    *(b"HTTP/1.0 ", b"HTTP/1.1 ", b"101", b"204", b"304", b"Connection: close", b"Upgrade: x"),
]


@given(st.lists(st.sampled_from(PARTS), max_size=30), cuts)
def test_shuffled_pieces_are_a_response_or_an_error(parts: list[bytes], cuts: list[int]) -> None:
    ends_well(b"".join(parts), cuts)


def mutated(raw: bytes, chance: random.Random) -> bytes:
    """Change *raw* in a few places: bytes set, taken out, put in, or copied from elsewhere."""
    changed = bytearray(raw)
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(changed) + 1)
        stop = min(len(changed), start + chance.randrange(8))
        source = chance.choice((PLAIN, CHUNKED, INTERIM, *PARTS))
        first = chance.randrange(len(source))
        changed[start:stop] = chance.choice(
            (b"", chance.randbytes(1), source[first : first + chance.randrange(40)])
        )
    return bytes(changed)


@pytest.mark.slow
def test_mutated_responses_are_a_response_or_an_error() -> None:
    chance = random.Random(5)
    trials = 200_000
    read = sum(
        ends_well(
            mutated(chance.choice((PLAIN, CHUNKED, INTERIM + PLAIN)), chance),
            [chance.randrange(200) for _ in range(chance.randrange(4))],
        )
        for _ in range(trials)
    )
    # Both outcomes must occur, or the mutations are too small or too large.
    assert trials // 50 < read < trials - trials // 50
