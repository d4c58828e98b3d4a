"""The dates of an X.509 certificate (RFC 5280 §4.1), read from its DER encoding."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

_INTEGER: Final = 0x02
_UTC_TIME: Final = 0x17
_GENERALIZED_TIME: Final = 0x18
_SEQUENCE: Final = 0x30
_VERSION: Final = 0xA0

_TIME: Final = re.compile(rb"(\d{2,4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z")


def parse_validity(der: bytes) -> tuple[datetime, datetime]:
    """Return from when and until when a certificate is valid; both are aware.

    Raises:
        ValueError: it is not the encoding of a certificate.
    """
    certificate, _ = _read(der, _SEQUENCE)
    rest, _ = _read(certificate, _SEQUENCE)
    if rest[:1] == bytes([_VERSION]):
        _, rest = _read(rest, _VERSION)
    for tag in (_INTEGER, _SEQUENCE, _SEQUENCE):  # Serial number, signature algorithm, issuer.
        _, rest = _read(rest, tag)
    validity, _ = _read(rest, _SEQUENCE)
    begins, rest = _read_time(validity)
    expires, _ = _read_time(rest)
    return begins, expires


def _read(data: bytes, tag: int) -> tuple[bytes, bytes]:
    """Return the content of an element, and the bytes after it."""
    if len(data) < 2 or data[0] != tag:
        raise ValueError(f"an element with tag {tag:#x} was expected")

    start, length = 2, data[1]
    if length > 0x80:
        # The long form: the number of bytes that hold the length (X.690 §8.1.3.5).
        start += length & 0x7F
        length = int.from_bytes(data[2:start])
    end = start + length
    if data[1] == 0x80 or end > len(data):
        raise ValueError("an element has no length, or is longer than its container")

    return data[start:end], data[end:]


def _read_time(data: bytes) -> tuple[datetime, bytes]:
    tag = data[0] if data else 0
    digits = {_UTC_TIME: 2, _GENERALIZED_TIME: 4}.get(tag)
    content, rest = _read(data, tag)
    match = _TIME.fullmatch(content)
    if digits is None or match is None or len(match[1]) != digits:
        raise ValueError("a time was expected")

    year, *others = map(int, match.groups())
    if digits == 2:
        year += 1900 if year >= 50 else 2000
    month, day, hour, minute, second = others
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC), rest
