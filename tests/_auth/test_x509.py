"""The dates of certificates, from their DER encoding."""

from __future__ import annotations

import random
import ssl
from datetime import UTC, datetime, timedelta

import pytest
import trustme

from kaleden._auth._x509 import parse_validity

BEGINS = datetime(2020, 2, 29, 23, 59, 59, tzinfo=UTC)


def encode(tag: int, *contents: bytes) -> bytes:
    """Return an element in DER."""
    content = b"".join(contents)
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    size = length.to_bytes(4).lstrip(b"\0")
    return bytes([tag, 0x80 + len(size)]) + size + content


def certificate(*times: bytes, version: bytes = b"\xa0\x03\x02\x01\x02") -> bytes:
    """Return the beginning of a certificate with these times."""
    head = (version, encode(2, b"\1"), encode(0x30), encode(0x30, b"x" * 300))
    return encode(0x30, encode(0x30, *head, encode(0x30, *times), b"rest"), b"signature")


def utc(text: str) -> bytes:
    return encode(0x17, text.encode())


def generalized(text: str) -> bytes:
    return encode(0x18, text.encode())


@pytest.mark.parametrize(
    "expires", [datetime(2049, 12, 31, tzinfo=UTC), datetime(2051, 1, 1, tzinfo=UTC)]
)
def test_dates_of_a_real_certificate(expires: datetime) -> None:
    leaf = trustme.CA().issue_cert("ada@example.org", not_before=BEGINS, not_after=expires)
    der = ssl.PEM_cert_to_DER_cert(leaf.cert_chain_pems[0].bytes().decode())
    assert (BEGINS, expires) == parse_validity(der)


@pytest.mark.parametrize(
    ("first", "second", "begins", "expires"),
    [
        (utc("200229235959Z"), utc("491231000000Z"), BEGINS, datetime(2049, 12, 31, tzinfo=UTC)),
        (
            utc("500101000000Z"),
            generalized("99991231235959Z"),
            datetime(1950, 1, 1, tzinfo=UTC),
            datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC),
        ),
    ],
)
def test_years_have_two_digits_or_four(
    first: bytes, second: bytes, begins: datetime, expires: datetime
) -> None:
    assert (begins, expires) == parse_validity(certificate(first, second))
    # Version 1 has no version.
    assert (begins, expires) == parse_validity(certificate(first, second, version=b""))


@pytest.mark.parametrize(
    "times",
    [
        (),
        (utc("200229235959Z"),),
        (utc("200229235959Z"), utc("210229235959Z")),
        (utc("200229235959Z"), utc("2001012359Z")),
        (utc("200229235959Z"), utc("200101235959+0100")),
        (utc("200229235959Z"), utc("20210101235959Z")),
        (utc("200229235959Z"), generalized("210101235959Z")),
        (utc("200229235959Z"), generalized("0210101235959Z")),
        (utc("200229235959Z"), encode(4, b"210101235959Z")),
        (utc("200229235959Z"), utc("210101235959Z")[:-1]),
        (utc("200229235959Z"), b"\x17"),
    ],
)
def test_other_times_are_refused(times: tuple[bytes, ...]) -> None:
    with pytest.raises(ValueError, match=r"element|time|range|month"):
        parse_validity(certificate(*times))


def test_every_truncation_and_mutation_is_parsed_or_refused() -> None:
    whole = certificate(utc("200229235959Z"), utc("491231000000Z"))
    for length in range(len(whole)):
        with pytest.raises(ValueError, match=r"element|time|range|month"):
            parse_validity(whole[:length])
    chance = random.Random(1)
    for _ in range(5000):
        mutated = bytearray(whole)
        for _ in range(chance.randrange(1, 4)):
            mutated[chance.randrange(60)] = chance.randrange(256)
        try:
            begins, expires = parse_validity(bytes(mutated))
        except ValueError:
            continue
        assert timedelta(0) != expires - begins or begins == expires


@pytest.mark.parametrize(
    "der", [b"", b"0", b"\x30\x80\0\0", b"\x30\xff" + b"a" * 200, b"\x30\x84\xff\xff\xff\xff"]
)
def test_lengths_stay_in_bounds(der: bytes) -> None:
    with pytest.raises(ValueError, match=r"element|time|range|month"):
        parse_validity(der)
