"""Request builders: method, path, query and form of every request."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from _wire.strategies import specs
from kaleden import _wire
from kaleden._errors import InvalidRequest
from kaleden._wire import Request, SessionKind, SessionSpec, SessionStatus, _requests

JSON, TEXT, XML = "application/json", "text/plain", "text/xml, application/xml"


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (_requests.build_list(), Request("GET", "session")),
        (_requests.build_list("headless"), Request("GET", "session?type=headless")),
        (
            _requests.build_list(SessionKind.CARTA, SessionStatus.FAILED),
            Request("GET", "session?type=carta&status=Failed"),
        ),
        (_requests.build_list(status="running"), Request("GET", "session?status=Running")),
        (_requests.build_list(SessionKind("a&b")), Request("GET", "session?type=a%26b")),
        (_requests.build_list(view="all"), Request("GET", "session?view=all")),
        (
            _requests.build_list(status="Pending", view="interactive"),
            Request("GET", "session?status=Pending&view=interactive"),
        ),
        (_requests.build_info("k3jd92xa"), Request("GET", "session/k3jd92xa")),
        (
            _requests.build_logs("k3jd92xa"),
            Request("GET", "session/k3jd92xa?view=logs", accept=TEXT, keep_last=True),
        ),
        (
            _requests.build_events("k3jd92xa"),
            Request("GET", "session/k3jd92xa?view=events", accept=TEXT),
        ),
        (
            _requests.build_renew("k3jd92xa"),
            Request("POST", "session/k3jd92xa", b"action=renew", accept=TEXT),
        ),
        (_requests.build_destroy("k3jd92xa"), Request("DELETE", "session/k3jd92xa", accept=TEXT)),
        (_requests.build_stats(), Request("GET", "session?view=stats")),
        (_requests.build_images(), Request("GET", "image")),
        (_requests.build_images("notebook"), Request("GET", "image?type=notebook")),
        (_requests.build_context(), Request("GET", "context")),
        (_requests.build_repositories(), Request("GET", "repository")),
        (
            _requests.build_availability(),
            Request("GET", "availability", versioned=False, accept=XML),
        ),
        (_requests.build_apps("k3jd92xa"), Request("GET", "session/k3jd92xa/app")),
    ],
    ids=lambda value: value.target if isinstance(value, Request) else "",
)
def test_builders_return_the_expected_request(request_: Request, expected: Request) -> None:
    assert expected == request_


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "headles"}, "kind 'headles' is not known"),
        ({"status": "Runing"}, "status 'Runing' is not known"),
        ({"view": "stats"}, "view must be 'all', 'interactive' or None, not 'stats'"),
        ({"view": "interactive", "kind": "carta"}, "kind is ignored by the server with view="),
    ],
)
def test_ineffective_filter_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        _requests.build_list(**arguments)


def test_images_filter_of_unknown_kind_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="kind 'x' is not known"):
        _requests.build_images("x")


BY_ID = [
    _requests.build_info,
    _requests.build_logs,
    _requests.build_events,
    _requests.build_renew,
    _requests.build_destroy,
    _requests.build_apps,
]
HOSTILE = st.sampled_from(
    ["..", "a/../b", "a?view=logs", "a#b", "%2e%2e", "a\r\nb", " a", "a" * 10_000]
)


@given(st.sampled_from(BY_ID), st.text(max_size=8) | HOSTILE)
def test_ids_cannot_change_the_path(build: Any, text: str) -> None:
    try:
        request = build(text)
    except InvalidRequest:
        return
    expected = urlsplit(build("k3jd92xa" if text != "k3jd92xa" else "x").target)
    actual = urlsplit(request.target)
    segments = [unquote(segment) for segment in actual.path.split("/")]

    assert text in segments
    assert len(expected.path.split("/")) == len(segments)
    assert (expected.query, "") == (actual.query, actual.fragment)


def test_create_sends_a_form_body_without_a_query() -> None:
    spec = SessionSpec(
        "fits",
        "skaha/astroml",
        cores=2.0,
        ram=4,
        gpus=1,
        cmd="python",
        args=["-c", "print('x')"],
        env={"A": "two words", "B": "é".encode().hex()},
        replicas=2,
    )

    request = _requests.build_create(spec.launches()[1])

    assert ("POST", "session", TEXT, True) == (
        request.method,
        request.target,
        request.accept,
        request.versioned,
    )
    assert [
        ("name", "fits-2"),
        ("image", "images.canfar.net/skaha/astroml:latest"),
        ("type", "headless"),
        ("cores", "2"),
        ("ram", "4"),
        ("gpus", "1"),
        ("cmd", "python"),
        ("args", "-c print('x')"),
        ("env", "A=two words"),
        ("env", "B=c3a9"),
        ("env", "REPLICA_ID=2"),
        ("env", "REPLICA_COUNT=2"),
    ] == parse_qsl(request.form.decode())


def test_create_omits_unset_parameters() -> None:
    request = _requests.build_create(SessionSpec("fits", "skaha/astroml").launches()[0])

    assert ["name", "image", "type", "env", "env"] == [
        key for key, _ in parse_qsl(request.form.decode())
    ]


@given(specs)
def test_create_form_round_trips_any_spec(spec: SessionSpec) -> None:
    launch = spec.launches()[-1]
    pairs = parse_qsl(
        _requests.build_create(launch).form.decode("ascii"),
        keep_blank_values=True,
        strict_parsing=True,
    )
    form = dict(pair for pair in pairs if pair[0] != "env")
    # The server drops a variable unless it has exactly two parts.
    parts = [value.split("=") for key, value in pairs if key == "env"]

    assert launch.env == dict(parts)
    assert (launch.name, spec.image, spec.kind) == (form["name"], form["image"], form["type"])
    assert spec.cmd == form.get("cmd")
    assert list(spec.args) == form["args"].split(" ") if spec.args else "args" not in form
    for name in ("cores", "ram", "gpus"):
        value = getattr(spec, name)
        assert value == (float(form[name]) if name in form else None)


def test_oversized_form_is_refused() -> None:
    spec = SessionSpec("fits", "skaha/astroml", env={"A": "x" * 2**21})

    with pytest.raises(InvalidRequest, match=r"args and env make a form of 209\d{4} bytes"):
        _requests.build_create(spec.launches()[0])


def test_registry_credentials_are_one_header() -> None:
    name, value = _wire.build_registry_header("robot$alice", "s3cret")

    assert "x-skaha-registry-auth" == name
    assert b"robot$alice:s3cret" == base64.b64decode(value)


@pytest.mark.parametrize(("user", "secret"), [("a:b", "c"), ("a", "b:c"), ("", "c"), ("a", "")])
def test_ambiguous_registry_credentials_are_refused(user: str, secret: str) -> None:
    with pytest.raises(InvalidRequest, match="the server splits there"):
        _wire.build_registry_header(user, secret)


def test_create_includes_further_headers() -> None:
    headers = (("x-skaha-registry-auth", "abc"),)
    launch = SessionSpec("fits", "skaha/astroml").launches()[0]

    assert headers == _requests.build_create(launch, headers=headers).headers


def test_request_repr_omits_secrets() -> None:
    launch = SessionSpec("fits", "skaha/astroml", env={"PASSWORD": "hunter2"}).launches()[0]
    request = _requests.build_create(launch, headers=(("x-skaha-registry-auth", "hunter3"),))

    assert b"hunter2" in request.form
    assert "hunter" not in repr(request)
