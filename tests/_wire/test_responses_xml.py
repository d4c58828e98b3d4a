"""Parsing of the availability document, including malicious XML."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from _wire.samples import AVAILABILITY, PAGE, make_response
from kaleden._wire import Availability, MalformedResponse
from kaleden._wire._responses import parse_availability


def test_available_service_is_parsed() -> None:
    assert Availability(
        True, ("service is accepting requests.", "with one experiment")
    ) == parse_availability(make_response(AVAILABILITY, kind="text/xml"))


def test_unavailable_service_is_parsed() -> None:
    document = AVAILABILITY.replace(">true<", "> false <")

    assert parse_availability(make_response(document)).available is False


@pytest.mark.parametrize("replaced", [">maybe<", "><"])
def test_availability_without_a_value_is_malformed(replaced: str) -> None:
    with pytest.raises(MalformedResponse, match="does not state whether the service is available"):
        parse_availability(make_response(AVAILABILITY.replace(">true<", replaced)))


def test_document_without_namespaces_is_parsed() -> None:
    plain = "<availability><available>true</available></availability>"

    assert Availability(True) == parse_availability(make_response(plain))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("", "the response is empty"),
        ("<a/>", "its root is <a>"),
        ("<availability", "not XML"),
        ("\x00", "not XML"),
        (PAGE, "an HTML page that says '502 Bad Gateway'"),
        ("<!DOCTYPE a [<!ENTITY x 'y'>]><availability>&x;</availability>", "DOCTYPE, which is ref"),
        (b"\xff\xfe<\x00a\x00/\x00>\x00", "not XML"),
    ],
)
def test_other_document_is_malformed(body: Any, reason: str) -> None:
    with pytest.raises(
        MalformedResponse, match=r"^expected VOSI .* XML, but the response is"
    ) as caught:
        parse_availability(make_response(body))

    assert reason in str(caught.value)


@given(body=st.binary() | st.text(st.sampled_from("<>/!avilbe &;'\"[]x")).map(str.encode))
def test_random_bytes_are_malformed(body: bytes) -> None:
    with pytest.raises(MalformedResponse):
        parse_availability(make_response(body))


@given(cut=st.integers(0, 400), extra=st.text(max_size=5))
def test_damaged_document_is_parsed_or_malformed(cut: int, extra: str) -> None:
    damaged = AVAILABILITY[:cut] + extra + AVAILABILITY[cut + 3 :]
    with suppress(MalformedResponse):
        assert isinstance(parse_availability(make_response(damaged)), Availability)
