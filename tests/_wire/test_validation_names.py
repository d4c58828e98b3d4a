"""Names, ids and image references: accepted unchanged, or refused with a suggestion."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from _wire.strategies import ids, images, names
from kaleden._errors import InvalidRequest
from kaleden._wire import check_id, check_name
from kaleden._wire._validation import complete_image, format_replica_name, format_value


@pytest.mark.parametrize("name", ["a", "7", "fits-17", "a--b", "x" * 63])
def test_host_label_is_accepted_as_a_name(name: str) -> None:
    assert name == check_name(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Fits-17", "use 'fits-17'"),
        ("fits_17", "use 'fits-17'"),
        ("my fits.17", "use 'my-fits-17'"),
        ("-fits-", "use 'fits'"),
        ("fits\n", "use 'fits'"),
        ("naïve", "use 'na-ve'"),
        ("x" * 64, "has 64 characters: use at most 63"),
        (17, "must be a string, not 17"),
    ],
)
def test_invalid_name_is_refused_with_a_suggestion(name: Any, message: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^name .*{re.escape(message)}"):
        check_name(name)


@pytest.mark.parametrize("name", ["", "-", "___"])
def test_name_without_valid_characters_gets_no_suggestion(name: str) -> None:
    with pytest.raises(InvalidRequest, match=r"inner hyphens$"):
        check_name(name)


@given(st.text(max_size=63))
def test_suggested_names_are_valid(text: str) -> None:
    try:
        check_name(text)
    except InvalidRequest as refusal:
        suggested = re.search(r"use '([^']*)'$", str(refusal))
        if suggested:
            assert suggested[1] == check_name(suggested[1])


@given(names)
def test_replica_name_has_a_suffix_only_among_several(name: str) -> None:
    assert name == format_replica_name(name, 1, 1)
    assert f"{name}-2" == format_replica_name(name, 2, 3)


@given(ids)
def test_label_value_is_accepted_as_an_id(text: str) -> None:
    assert text == check_id(text)


@pytest.mark.parametrize(
    "text",
    ["", "a/b", "..", ".", "a b", "a?view=logs", "a#b", "%2e", "é", "a\n", "-a", "x" * 64, 5, None],
)
def test_invalid_id_is_refused(text: Any) -> None:
    with pytest.raises(InvalidRequest, match="cannot be one: an id is"):
        check_id(text)


@pytest.mark.parametrize("huge", ["é" * 10_000, "\x00" * 10_000, ["x" * 10_000]])
def test_huge_id_is_cut_in_the_message(huge: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_id(huge)

    assert len(str(caught.value)) < 250
    assert str(caught.value).startswith("session id ")


def test_long_value_is_cut_and_short_value_is_not() -> None:
    assert f"'{'x' * 60}'" == format_value("x" * 60)
    assert f"'{'x' * 59}…" == format_value("x" * 61)


DIGEST = f"@sha256:{'0f' * 32}"


@pytest.mark.parametrize(
    ("reference", "full"),
    [
        ("skaha/astroml", "images.canfar.net/skaha/astroml:latest"),
        ("skaha/astroml:24.07", "images.canfar.net/skaha/astroml:24.07"),
        ("skaha/deep/astroml:1", "images.canfar.net/skaha/deep/astroml:1"),
        ("skaha/astroml" + DIGEST, "images.canfar.net/skaha/astroml" + DIGEST),
        ("skaha/astroml:1" + DIGEST, "images.canfar.net/skaha/astroml:1" + DIGEST),
        ("images.canfar.net/skaha/astroml", "images.canfar.net/skaha/astroml:latest"),
        ("localhost/skaha/astroml:1", "localhost/skaha/astroml:1"),
        ("registry:5000/skaha/astroml:1", "registry:5000/skaha/astroml:1"),
    ],
)
def test_image_reference_is_completed(reference: str, full: str) -> None:
    assert full == complete_image(reference)


def test_default_registry_can_be_set() -> None:
    assert "my.registry/skaha/astroml:latest" == complete_image("skaha/astroml", "my.registry")


@given(images)
def test_completing_an_image_is_idempotent(reference: str) -> None:
    assert complete_image(reference) == complete_image(complete_image(reference))


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("", "name its project too"),
        ("astroml:1", "name its project too"),
        ("https://images.canfar.net/skaha/astroml", "leave out the scheme"),
        ("skaha//astroml", "empty part"),
        ("skaha/", "empty part"),
        ("/skaha/astroml", "empty part"),
        ("skaha/AstroML", "lower case"),
        ("skaha/astro ml", "has a space"),
        ("astro ml", "has a space"),
        ("skaha/astro+ml", "letters, digits"),
        ("skaha/astroml:1 ", "has a space"),
        ("skaha/astroml:", "its tag cannot be one"),
        ("skaha/astroml@sha256:xyz", "its tag cannot be one"),
        ("images_.canfar.net/skaha/astroml", "its host cannot be one"),
        ("skaha/../astroml", "letters, digits"),
        (None, "must be a string, not None"),
    ],
)
def test_invalid_image_reference_is_refused_with_the_reason(reference: Any, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^image .*{reason}"):
        complete_image(reference)


@given(st.text(max_size=40))
def test_image_reference_from_any_text_is_completed_or_refused(text: str) -> None:
    try:
        full = complete_image(text)
    except InvalidRequest:
        return
    assert text in full
    assert full.isascii()
    assert " " not in full
