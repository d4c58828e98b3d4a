"""Response parsers: models from new and old servers, and errors for malformed responses."""

from __future__ import annotations

import json
import math
import pickle
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest

from _wire.samples import (
    CONTEXT,
    IMAGES,
    NOTEBOOK,
    OLD,
    OLD_STATS,
    OTHER_USER,
    PAGE,
    PENDING,
    RUNNING,
    STATS,
    make_json_response,
    make_response,
)
from kaleden import _wire
from kaleden._wire import (
    Choices,
    CoreStats,
    GpuStats,
    Image,
    InstanceStats,
    MalformedResponse,
    RamStats,
    Response,
    SessionInfo,
    SessionKind,
    SessionStatus,
    _responses,
)

GIB = 2**30


def test_running_session_is_parsed() -> None:
    assert SessionInfo(
        id="k3jd92xa",
        name="demo-1",
        kind=SessionKind.HEADLESS,
        status=SessionStatus.RUNNING,
        user="alice",
        image="images.canfar.net/skaha/terminal:1.1.2",
        start_time=datetime(2026, 8, 1, 10, 20, 30, tzinfo=UTC),
        expiry_time=datetime(2026, 8, 15, 10, 20, 30, tzinfo=UTC),
        connect_url=None,
        requested_ram=4_290_000_000,
        ram_in_use=120_000_000,
        requested_cores=1.0,
        cores_in_use=0.003,
        requested_gpus=0,
        fixed_resources=True,
        uid=10001,
        gid=10001,
        groups=(20001,),
        app_id=None,
    ) == _responses.parse_info(make_json_response(RUNNING))


def test_pending_session_has_no_times_and_no_usage() -> None:
    info = _responses.parse_info(make_json_response(PENDING))

    assert SessionStatus.PENDING is info.status
    assert (None, None, None, None) == (
        info.start_time,
        info.expiry_time,
        info.ram_in_use,
        info.cores_in_use,
    )


def test_session_of_an_old_server_is_parsed() -> None:
    assert SessionInfo(
        id="rt3c9wq1",
        name="old",
        kind=SessionKind.HEADLESS,
        status=SessionStatus.SUCCEEDED,
        user="alice",
        image="images.canfar.net/skaha/terminal:1.1.2",
        start_time=datetime(2025, 4, 10, 15, 45, tzinfo=UTC),
        requested_ram=16_000_000_000,
        ram_in_use=101_000_000,
        requested_cores=2.0,
        cores_in_use=0.002,
    ) == _responses.parse_info(make_json_response(OLD))


def test_session_of_another_user_is_parsed() -> None:
    assert SessionInfo(
        user="bob",
        kind=SessionKind.CARTA,
        status=SessionStatus.RUNNING,
        start_time=datetime(2026, 8, 1, 10, 20, 30, tzinfo=UTC),
    ) == _responses.parse_info(make_json_response(OTHER_USER))


def test_empty_object_is_a_session_with_defaults() -> None:
    info = _responses.parse_info(make_json_response({}))

    assert SessionInfo() == info
    assert (SessionKind.UNKNOWN, SessionStatus.UNKNOWN) == (info.kind, info.status)


def test_session_keeps_its_raw_object_and_its_repr_omits_the_secret() -> None:
    info = _responses.parse_info(make_json_response(NOTEBOOK | {"new": [1]}))

    assert NOTEBOOK | {"new": [1]} == info.raw
    assert NOTEBOOK["connectURL"] == info.connect_url
    assert "token=" not in repr(info)


@pytest.mark.parametrize("before", ["", "\ufeff", " \r\n\t", "\ufeff\n"])
@pytest.mark.parametrize("after", ["", "\n", " \r\n\t"])
def test_white_space_around_json_is_ignored(before: str, after: str) -> None:
    info = _responses.parse_info(make_response(f"{before}{json.dumps(RUNNING)}{after}"))

    assert _responses.parse_info(make_json_response(RUNNING)) == info
    assert RUNNING == info.raw


@pytest.mark.parametrize("after", ["{}", "x", "\0", "\u00a0", "]"])
def test_trailing_data_after_json_is_malformed(after: str) -> None:
    with pytest.raises(MalformedResponse):
        _responses.parse_info(make_response(f"{json.dumps(RUNNING)}{after}"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("18446744073709551616", 2**64),
        ("1e999", math.inf),
        ("-Infinity", -math.inf),
        ('"\\ud800"', "\ud800"),
        ("1.0000000000000000000000001", 1.0),
    ],
)
def test_odd_values_are_parsed_as_by_the_standard_library(text: str, value: Any) -> None:
    info = _responses.parse_info(make_response(f'{{"id": "abc", "odd": 0, "odd": {text}}}'))

    assert {"id": "abc", "odd": value} == info.raw


def test_changes_to_a_raw_object_do_not_change_the_session() -> None:
    info = _responses.parse_info(make_json_response(RUNNING))
    info.raw.clear()

    assert RUNNING == info.raw
    assert RUNNING == pickle.loads(pickle.dumps(info)).raw
    assert {"id": "b"} == attrs.evolve(info, raw={"id": "b"}).raw


def test_sessions_are_compared_without_their_raw_objects() -> None:
    one, other = (_responses.parse_info(make_json_response(RUNNING | {"new": n})) for n in (1, 2))

    assert one == other
    assert 1 == len({one, other})


def test_desktop_app_has_its_own_id() -> None:
    assert "abc" == _responses.parse_info(make_json_response(RUNNING | {"appid": "abc"})).app_id


def test_byte_order_mark_and_invalid_utf8_are_tolerated() -> None:
    body = b"\xef\xbb\xbf" + json.dumps(RUNNING).encode().replace(b"demo-1", b"d\xffmo")

    assert "d\ufffdmo" == _responses.parse_info(make_response(body)).name


def test_list_keeps_its_order_and_separates_malformed_elements() -> None:
    listing = _responses.parse_list(make_json_response([RUNNING, None, OLD, "x", [RUNNING], 7]))

    assert ["k3jd92xa", "rt3c9wq1"] == [info.id for info in listing.sessions]
    assert (None, "x", [RUNNING], 7) == listing.malformed


def test_empty_list_is_an_empty_listing() -> None:
    assert _wire.Listing() == _responses.parse_list(make_json_response([]))


def test_logs_are_returned_unchanged() -> None:
    assert "  one\n<html>\n" == _responses.parse_logs(make_response("  one\n<html>\n"))
    assert "" == _responses.parse_logs(make_response())
    assert "a\ufffdb" == _responses.parse_logs(make_response(b"a\xffb"))


def test_create_returns_the_id() -> None:
    assert "k3jd92xa" == _responses.parse_create(make_response("k3jd92xa\r\n"))


@pytest.mark.parametrize("body", ["", "\n", "two words", "one\ntwo", "a/b", '{"id":"x"}'])
def test_create_without_an_id_is_malformed(body: str) -> None:
    with pytest.raises(MalformedResponse, match=r"^expected a session id, but the response is "):
        _responses.parse_create(make_response(body))


def test_renew_and_delete_return_true() -> None:
    assert (
        True
        is _responses.parse_done(make_response())
        is _responses.parse_done(make_response("k3jd92xa\n"))
    )


def test_statistics_of_a_new_server_are_parsed() -> None:
    stats = _responses.parse_stats(make_json_response(STATS))

    assert CoreStats(377.5, 960.0, 32.0, 192 * 10**9) == stats.cores
    assert RamStats(9_432_822_000_000, 15_032_386_000_000, 192 * 10**9, 16.0) == stats.ram
    assert GpuStats(3, 28, 4) == stats.gpu
    assert stats.instances is None
    assert STATS == stats.raw


def test_statistics_of_an_old_server_are_parsed() -> None:
    stats = _responses.parse_stats(make_json_response(OLD_STATS))

    assert CoreStats(377.0, 960.0, 32.0, 147 * GIB) == stats.cores
    assert RamStats(None, None, 226 * GIB, 32.0) == stats.ram
    assert stats.gpu is None
    assert InstanceStats(88, 30, 1, 119) == stats.instances


def test_context_memory_is_in_bytes() -> None:
    context = _responses.parse_context(make_json_response(CONTEXT))

    assert Choices(2, 1, 8, None, (1, 2, 4)) == context.cores
    assert Choices(8 * GIB, 4 * GIB, 32 * GIB, None, (GIB, 2 * GIB)) == context.memory
    assert Choices(options=(1, 2)) == context.gpus
    assert 5 == context.max_interactive_sessions


@pytest.mark.parametrize(("value", "limit"), [("5", 5), (5, 5), ("many", None), (None, None)])
def test_context_session_limit_may_be_a_string(value: Any, limit: int | None) -> None:
    context = _responses.parse_context(
        make_json_response(CONTEXT | {"maxInteractiveSessions": value})
    )

    assert limit == context.max_interactive_sessions


def test_context_of_an_old_server_is_parsed() -> None:
    old = {"cores": {"default": 1, "defaultHeadless": 2, "options": [1, "x", 4]}, "memoryGB": []}
    context = _responses.parse_context(make_json_response(old))

    assert Choices(default=1, default_headless=2, options=(1, 4)) == context.cores
    assert Choices() == context.memory == context.gpus
    assert context.max_interactive_sessions is None


def test_images_are_split_into_parts() -> None:
    terminal, carta = _responses.parse_images(make_json_response(IMAGES))

    assert (
        Image(
            "images.canfar.net/skaha/terminal:1.1.2",
            (SessionKind.HEADLESS, SessionKind.NOTEBOOK),
            "sha256:0123",
        )
        == terminal
    )
    assert carta.digest is None
    assert ("images.canfar.net", "skaha", "terminal", "1.1.2") == (
        terminal.host,
        terminal.project,
        terminal.name,
        terminal.tag,
    )


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("terminal", ("", "", "terminal", "")),
        ("host:5000/terminal", ("host:5000", "", "terminal", "")),
        ("host/a/b/terminal:1@sha256:00", ("host", "a/b", "terminal", "1")),
        ("host/a/terminal@sha256:00", ("host", "a", "terminal", "")),
    ],
)
def test_image_reference_may_lack_parts(reference: str, parts: tuple[str, ...]) -> None:
    image = Image(reference)

    assert parts == (image.host, image.project, image.name, image.tag)


def test_image_without_an_id_is_left_out() -> None:
    elements = [None, {}, {"id": ""}, {"id": "h/p/n:1", "types": [None, "", "vscode"]}, "h/p/n:2"]

    assert (Image("h/p/n:1", (SessionKind("vscode"),)),) == _responses.parse_images(
        make_json_response(elements)
    )


def test_repositories_are_hosts() -> None:
    elements = ["images.canfar.net", None, "", {"x": 1}, "other"]

    assert ("images.canfar.net", "other") == _responses.parse_repositories(
        make_json_response(elements)
    )


OBJECTS = [_responses.parse_info, _responses.parse_stats, _responses.parse_context]
ARRAYS = [_responses.parse_list, _responses.parse_images, _responses.parse_repositories]


@pytest.mark.parametrize("parse", OBJECTS)
@pytest.mark.parametrize("value", [[], [RUNNING], None, "x", 7, True])
def test_value_in_place_of_an_object_is_malformed(parse: Any, value: Any) -> None:
    with pytest.raises(
        MalformedResponse, match=r"^expected .* as a JSON object, but the response is app"
    ):
        parse(make_json_response(value))


@pytest.mark.parametrize("parse", ARRAYS)
@pytest.mark.parametrize("value", [{}, RUNNING, None, "x", 7, True])
def test_value_in_place_of_an_array_is_malformed(parse: Any, value: Any) -> None:
    with pytest.raises(
        MalformedResponse, match=r"^expected .* as a JSON array, but the response is app"
    ):
        parse(make_json_response(value))


@pytest.mark.parametrize("parse", [*OBJECTS, *ARRAYS])
@pytest.mark.parametrize(
    ("response", "description"),
    [
        (make_response(), "empty"),
        (make_response(" \n"), "empty"),
        (make_response('{"id": "k3', kind="application/json"), 'application/json, \'{"id": "k3\''),
        (make_response("k3jd92xa\n"), "text/plain, 'k3jd92xa'"),
        (make_response("k3", kind=""), "without content type, 'k3'"),
        (
            make_response(PAGE, kind="text/html"),
            "an HTML page that says '502 Bad Gateway': is the URL ri",
        ),
        (make_response(PAGE), "an HTML page that says '502 Bad Gateway': is the URL right?"),
        (make_response("[" * 100_000), "text/plain, '[[[["),
        (make_response("1" * 10_000), "text/plain, '1111"),
        (make_response("x", kind="a\x00" * 10_000), "a a a a"),
    ],
    ids=["nothing", "blank", "cut", "text", "untyped", "html", "?html", "deep", "long", "type"],
)
def test_malformed_response_describes_the_body(
    parse: Any, response: Response, description: str
) -> None:
    with pytest.raises(MalformedResponse) as caught:
        parse(response)

    assert description in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    "parse",
    [
        _responses.parse_logs,
        _responses.parse_events,
        _responses.parse_create,
        _responses.parse_done,
    ],
)
def test_html_page_in_place_of_text_is_malformed(parse: Any) -> None:
    with pytest.raises(MalformedResponse, match="an HTML page that says '502 Bad Gateway'"):
        parse(make_response(PAGE, kind="text/html;charset=utf-8"))


def test_response_repr_has_the_length_of_the_body() -> None:
    assert "Response(status=200, headers={'content-type': 'text/plain'}, body=<7 bytes>)" == repr(
        make_response("hunter2")
    )
