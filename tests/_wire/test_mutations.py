"""Damaged payloads: a malformed part does not affect the other parts."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from _wire.samples import (
    CONTEXT,
    EVENTS,
    IMAGES,
    NOTEBOOK,
    OLD,
    OLD_STATS,
    OTHER_USER,
    PENDING,
    RUNNING,
    STATS,
    make_json_response,
    make_response,
)
from _wire.strategies import damage_payload, json_values
from kaleden._wire import MalformedResponse, Response, SessionInfo, _responses
from kaleden._wire._responses import parse_info, parse_list

SESSIONS = [RUNNING, PENDING, NOTEBOOK, OLD, OTHER_USER]
damaged_sessions = st.sampled_from(SESSIONS).flatmap(damage_payload)

# The server's key of each field.
KEYS = {
    "id": "id",
    "name": "name",
    "kind": "type",
    "status": "status",
    "user": "userid",
    "image": "image",
    "start_time": "startTime",
    "expiry_time": "expiryTime",
    "connect_url": "connectURL",
    "requested_ram": "requestedRAM",
    "ram_in_use": "ramInUse",
    "requested_cores": "requestedCPUCores",
    "cores_in_use": "cpuCoresInUse",
    "requested_gpus": "requestedGPUCores",
    "fixed_resources": "isFixedResources",
    "uid": "runAsUID",
    "gid": "runAsGID",
    "groups": "supplementalGroups",
    "app_id": "appid",
}


@given(damaged_sessions)
def test_damaged_session_is_still_parsed(payload: dict[str, Any]) -> None:
    info = parse_info(make_json_response(payload))

    assert payload == info.raw


@given(damage_payload(NOTEBOOK))
def test_damaged_field_does_not_affect_other_fields(payload: dict[str, Any]) -> None:
    whole, info = parse_info(make_json_response(NOTEBOOK)), parse_info(make_json_response(payload))

    for field, key in KEYS.items():
        if key in payload and payload[key] is NOTEBOOK.get(key):
            assert getattr(whole, field) == getattr(info, field)


def test_keys_cover_every_field_of_a_session() -> None:
    assert {*KEYS, "raw"} == {field.alias for field in attrs.fields(SessionInfo)}


@given(st.lists(damaged_sessions | json_values, max_size=6))
def test_damaged_element_does_not_affect_other_elements(elements: list[Any]) -> None:
    listing = parse_list(make_json_response([RUNNING, *elements, OLD]))
    objects = [each for each in elements if isinstance(each, dict)]

    assert [RUNNING, *objects, OLD] == [info.raw for info in listing.sessions]
    assert len(elements) == len(objects) + len(listing.malformed)
    assert parse_info(make_json_response(RUNNING)) == listing.sessions[0]
    assert parse_info(make_json_response(OLD)) == listing.sessions[-1]


@given(
    damage_payload(STATS)
    | damage_payload(OLD_STATS)
    | damage_payload(STATS["cores"]).map(lambda c: STATS | {"cores": c})
)
def test_damaged_statistics_are_still_parsed(payload: dict[str, Any]) -> None:
    assert payload == _responses.parse_stats(make_json_response(payload)).raw


@given(
    damage_payload(CONTEXT) | damage_payload(CONTEXT["cores"]).map(lambda c: CONTEXT | {"cores": c})
)
def test_damaged_context_is_still_parsed(payload: dict[str, Any]) -> None:
    assert payload == _responses.parse_context(make_json_response(payload)).raw


@given(st.lists(damage_payload(IMAGES[0]) | json_values))
def test_damaged_image_does_not_affect_other_images(elements: list[Any]) -> None:
    images = _responses.parse_images(make_json_response([IMAGES[0], *elements, IMAGES[1]]))

    assert (IMAGES[0], IMAGES[1]) == (images[0].raw, images[-1].raw)
    assert all(image.id for image in images)


PARSERS = [
    _responses.parse_info,
    _responses.parse_list,
    _responses.parse_logs,
    _responses.parse_events,
    _responses.parse_create,
    _responses.parse_done,
    _responses.parse_stats,
    _responses.parse_images,
    _responses.parse_context,
    _responses.parse_repositories,
    _responses.parse_availability,
]
WHOLE = [json.dumps(each).encode() for each in (RUNNING, SESSIONS, STATS, CONTEXT, IMAGES)]
WHOLE.append(EVENTS.encode())


@st.composite
def damage_body(draw: st.DrawFn) -> bytes:
    """Replace a piece of a response by random bytes."""
    body = draw(st.sampled_from(WHOLE))
    start = draw(st.integers(0, len(body)))
    return body[:start] + draw(st.binary(max_size=4)) + body[start + draw(st.integers(0, 20)) :]


@pytest.mark.parametrize("parse", PARSERS)
@given(
    body=st.binary() | json_values.map(json.dumps).map(str.encode) | damage_body(),
    kind=st.sampled_from(["", "text/plain", "text/html", "application/json"]) | st.text(),
)
def test_parsers_raise_only_malformed_response(parse: Any, body: bytes, kind: str) -> None:
    response = Response(200, {"content-type": kind}, body)
    with suppress(MalformedResponse):
        assert parse(response) is not None


@pytest.mark.parametrize("parse", PARSERS)
def test_huge_malformed_response_gives_a_short_message(parse: Any) -> None:
    with pytest.raises(MalformedResponse) as caught:
        parse(make_response(b"<" * 1_000_000, kind="text/html"))

    assert len(str(caught.value)) < 300
