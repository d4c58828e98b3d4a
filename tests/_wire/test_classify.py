"""Classification of responses: the kind and message of a failure."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from _wire.samples import KUBERNETES_500, PAGE, make_response
from kaleden._errors import FailureKind
from kaleden._wire import ErrorResponse, Response, classify

NOW = datetime(2026, 8, 1, 12, 0, tzinfo=UTC)


def classify_error(response: Response) -> ErrorResponse:
    failure = classify(response, now=NOW)
    assert failure is not None
    return failure


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_success_is_not_an_error(status: int) -> None:
    assert classify(make_response("anything", status)) is None


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (100, FailureKind.PROTOCOL),
        (302, FailureKind.PROTOCOL),
        (400, FailureKind.BAD_REQUEST),
        (401, FailureKind.NOT_AUTHENTICATED),
        (403, FailureKind.NOT_AUTHORIZED),
        (404, FailureKind.NOT_FOUND),
        (405, FailureKind.BAD_REQUEST),
        (423, FailureKind.BAD_REQUEST),
        (429, FailureKind.UNAVAILABLE),
        (499, FailureKind.BAD_REQUEST),
        (500, FailureKind.SERVER_ERROR),
        (502, FailureKind.SERVER_ERROR),
        (503, FailureKind.UNAVAILABLE),
        (504, FailureKind.SERVER_ERROR),
        (599, FailureKind.SERVER_ERROR),
        (600, FailureKind.PROTOCOL),
        (0, FailureKind.PROTOCOL),
    ],
)
def test_each_status_maps_to_a_kind(status: int, kind: FailureKind) -> None:
    failure = classify_error(make_response("some reason\n", status))

    assert (kind, status) == (failure.kind, failure.status)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, "Missing parameter 'image'"),
        (401, "Unauthorized"),
        (403, "Not authorized to use the skaha system"),
        (404, "session k3jd92xa not found"),
        (500, "unexpected exception: java.lang.IllegalStateException: BUG"),
        (503, "temporarily unavailable: /skaha/v1/session"),
    ],
)
def test_message_is_the_text_of_the_server(status: int, body: str) -> None:
    assert body == classify_error(make_response(f"{body}\n", status)).message


def test_text_without_content_type_is_accepted() -> None:
    assert (
        FailureKind.NOT_FOUND
        is classify_error(make_response("session x not found\n", 404, kind="")).kind
    )


def test_anonymous_call_is_not_authenticated() -> None:
    failure = classify_error(make_response("cannot get group memberships for anonymous\n", 400))

    assert FailureKind.NOT_AUTHENTICATED is failure.kind
    assert (
        "the server took the call as anonymous, log in: "
        "cannot get group memberships for anonymous" == failure.message
    )


def test_reached_session_limit_is_a_quota_failure() -> None:
    text = "User alice has reached the maximum of 3 active sessions."

    assert ErrorResponse(FailureKind.QUOTA, text, 400) == classify_error(
        make_response(f"{text}\n", 400)
    )


def test_kubernetes_message_takes_precedence() -> None:
    failure = classify_error(make_response(KUBERNETES_500, 500))

    assert FailureKind.SERVER_ERROR is failure.kind
    assert (
        'jobs.batch "skaha-headless-alice-k3jd92xa" not found (from Kubernetes)' == failure.message
    )


def test_truncated_kubernetes_message_is_kept_unchanged() -> None:
    cut = KUBERNETES_500[: KUBERNETES_500.index("not found")]

    assert classify_error(make_response(cut, 500)).message.startswith(
        "unexpected exception: java.lang.Runtime"
    )


@pytest.mark.parametrize("quoted", [r'"\x"', '""', r'"\u12"'])
def test_invalid_kubernetes_message_is_kept_unchanged(quoted: str) -> None:
    text = f'unexpected exception: {{"kind":"Status","message":{quoted}}}'

    assert text == classify_error(make_response(text, 500)).message


@pytest.mark.parametrize(
    "response",
    [
        make_response(PAGE, 404, kind="text/html"),
        make_response(PAGE, 404),
        make_response(json.dumps({"detail": "Not Found"}), 404, kind="application/json"),
        make_response("", 404),
        make_response(" \n", 404),
        make_response("404 page not found\n", 404),
        make_response("default backend - 404", 404),
        make_response("no Route matched with those values", 404),
        make_response("The requested URL was not found on this server.", 404),
    ],
)
def test_not_found_from_another_server_questions_the_url(response: Response) -> None:
    failure = classify_error(response)

    assert FailureKind.PROTOCOL is failure.kind
    assert failure.message.endswith("no Skaha API answers there; is the URL right?")


def test_html_page_is_reduced_to_its_title() -> None:
    assert (
        "HTTP 502 Bad Gateway, an HTML page that says '502 Bad Gateway'"
        == classify_error(make_response(PAGE, 502, kind="text/html")).message
    )


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("https://login.example/?secret=hunter2", "'login.example'"),
        ("https://alice:hunter2@login.example/", "'login.example'"),
        ("/login?hunter2", "a path on the same host"),
        ("http://[::1", "a path on the same host"),
        ("", "nowhere"),
    ],
)
def test_redirect_is_an_error_that_shows_only_the_host(location: str, target: str) -> None:
    failure = classify_error(make_response(PAGE, 302, location=location))

    assert FailureKind.PROTOCOL is failure.kind
    assert f"HTTP 302 Found to {target}: redirects are not followed" in failure.message
    assert "hunter2" not in failure.message


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "HTTP 401 Unauthorized, with an empty body"),
        (500, "HTTP 500 Internal Server Error, with an empty body"),
        (599, "HTTP 599, with an empty body"),
    ],
)
def test_empty_body_gets_a_generated_message(status: int, message: str) -> None:
    assert message == classify_error(make_response(b"", status)).message
    assert message == classify_error(make_response(b" \r\n\x00", status)).message


def test_message_is_one_line_without_control_characters() -> None:
    assert (
        "a b [31mc d" == classify_error(make_response("  a\n\tb \x1b[31mc\x00d\r\n", 400)).message
    )


def test_long_message_is_cut() -> None:
    message = classify_error(make_response("x" * 100_000, 400)).message

    assert f"{'x' * 499}…" == message


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("30", 30.0),
        (" 2.5 ", 2.5),
        ("0", 0.0),
        ("Sat, 01 Aug 2026 12:00:30 GMT", 30.0),
        ("Sat, 01 Aug 2026 12:00:30 -0000", 30.0),
        ("Sat, 01 Aug 2026 13:00:30 +0100", 30.0),
        ("Sat, 01 Aug 2026 11:59:30 GMT", None),
        ("", None),
        ("-5", None),
        ("soon", None),
        ("inf", None),
        ("nan", None),
        ("1e3", None),
        ("٣", None),
        ("9" * 400, None),
        ("Sat, 99 Aug 2026 12:00:30 GMT", None),
        ("Sat, 01 Aug 999999 12:00:30 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str, seconds: float | None) -> None:
    assert seconds == classify_error(make_response("wait\n", 503, retry_after=header)).retry_after


def test_missing_retry_after_is_none() -> None:
    assert classify_error(make_response("temporarily unavailable", 503)).retry_after is None


def test_retry_date_is_relative_to_the_clock_by_default() -> None:
    failure = classify(make_response("wait", 503, retry_after="Fri, 01 Jan 2999 00:00:00 GMT"))

    assert failure is not None
    assert failure.retry_after is not None
    assert failure.retry_after > 1e9


bodies = st.binary() | st.sampled_from([PAGE, KUBERNETES_500]).map(str.encode)
numbers = st.integers(0, 99) | st.integers()
dates = st.builds("Sat, {} Aug {} {}:{}:00 {:+}".format, *[numbers] * 5)
headers = st.dictionaries(
    st.sampled_from(["content-type", "retry-after", "location", "x"]), st.text() | dates
)


@given(st.builds(Response, st.integers(0, 1000), headers, bodies))
def test_any_response_is_classified_with_a_short_message(response: Response) -> None:
    failure = classify(response, now=NOW)

    if failure is None:
        assert 200 <= response.status < 300
    else:
        assert 0 < len(failure.message) < 600
        assert failure.message.isprintable()
        assert failure.retry_after is None or failure.retry_after >= 0
