"""A client that cannot work is refused when it is built, with the way out."""

from __future__ import annotations

from typing import Any

import pytest

import kaleden
from kaleden import ConfigurationError
from kaleden._auth._endpoint import parse_endpoint
from support import described, session_on


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("https://ws-uv.canfar.net/skaha", "https://ws-uv.canfar.net/skaha/v1"),
        ("https://ws-uv.canfar.net/skaha/", "https://ws-uv.canfar.net/skaha/v1"),
        ("https://ws-uv.canfar.net/skaha/v0", "https://ws-uv.canfar.net/skaha/v0"),
        ("https://host/skaha/v1/", "https://host/skaha/v1"),
        ("https://host:8443", "https://host:8443/v1"),
        ("http://[::1]:80/skaha", "http://[::1]:80/skaha/v1"),
        ("HTTPS://host/skaha", "https://host/skaha/v1"),
    ],
)
def test_url_may_name_the_version_or_not(url: str, base: str) -> None:
    endpoint = parse_endpoint(url, "v1")
    assert base == endpoint.base
    assert base.rpartition("/")[0] == endpoint.root


def test_version_can_be_chosen() -> None:
    assert "https://host/skaha/v0" == parse_endpoint("https://host/skaha", "v0").base


@pytest.mark.parametrize(
    "url",
    [
        "ws-uv.canfar.net/skaha",
        "ftp://host/skaha",
        "https://",
        "https:///skaha",
        "https://host:port/skaha",
        "https://[::1/skaha",
        "https://host/ska ha",
        "https://host/skaha\n",
        "https://hóst/skaha",
        "https://host\\@other/skaha",
        "https://a..b/skaha",
        f"https://{'x' * 64}/skaha",
        "https://xn--/skaha",
        "https://-host/skaha",
    ],
)
def test_invalid_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        kaleden.AsyncSession(url, "token")


@pytest.mark.parametrize(
    "url", ["https://user:secret@host/x", "https://host/x?secret=1", "https://host/#secret"]
)
def test_url_with_user_query_or_fragment_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigurationError, match="token=") as caught:
        kaleden.AsyncSession(url, "token")
    assert "secret" not in str(caught.value)


def test_no_url_names_the_ways_to_get_one() -> None:
    with pytest.raises(ConfigurationError, match="LocalPlatform"):
        kaleden.AsyncSession()


@pytest.mark.parametrize("token", ["a\nb", "token\n", "a b", "", "tökén", "a\x00", 5])
def test_token_that_cannot_be_a_header_is_refused_without_showing_it(token: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"strip\(\)") as caught:
        kaleden.AsyncSession("https://host/skaha", token)
    assert repr(token) not in str(caught.value)


@pytest.mark.parametrize(
    "host", ["host", "10.0.0.1", "127.0.0.1.example.org", "localhost.example.org"]
)
def test_token_is_not_sent_in_the_clear(host: str) -> None:
    with pytest.raises(ConfigurationError, match="use https"):
        kaleden.AsyncSession(f"http://{host}/skaha", "token")
    kaleden.AsyncSession(f"http://{host}/skaha")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.1", "[::1]"])
def test_token_may_stay_on_this_machine(host: str) -> None:
    assert host in repr(kaleden.AsyncSession(f"http://{host}/skaha", "token"))


@pytest.mark.parametrize("name", ["timeout", "create_timeout"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "30", True])
def test_times_are_seconds_above_zero(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} is a number of seconds"):
        kaleden.AsyncSession("https://host", "token", **{name: value})


@pytest.mark.parametrize("name", ["concurrency", "create_concurrency"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "8", True])
def test_limits_are_whole_numbers_above_zero(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} is a whole number"):
        kaleden.AsyncSession("https://host", "token", **{name: value})


@pytest.mark.parametrize("value", [0, -1, 1e6, "64 MiB", True])
def test_max_body_is_a_number_of_bytes(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="max_body is a whole number of bytes"):
        kaleden.AsyncSession("https://host", "token", max_body=value)


def test_invalid_version_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'v' and a number"):
        kaleden.AsyncSession("https://host", version="../v1")


def test_repr_shows_no_token() -> None:
    session = kaleden.AsyncSession("https://host/skaha", "hush-hush")
    assert "<AsyncSession https://host/skaha/v1: not open>" == repr(session)


def test_transport_of_the_caller_refuses_other_arguments() -> None:
    _, transport = session_on(described)
    given: list[dict[str, Any]] = [{"url": "https://host"}, {"token": "secret"}, {"max_body": 1}]
    for arguments in given:
        with pytest.raises(ConfigurationError, match="to the transport"):
            kaleden.AsyncSession(transport=transport, **arguments)


@pytest.mark.parametrize("url", [b"https://host.example/skaha", "https://host.example/\x7f"])
def test_url_of_another_type_is_refused(url: Any) -> None:
    with pytest.raises(ConfigurationError):
        kaleden.AsyncSession(url, "token")


@pytest.mark.parametrize("version", [None, 1, b"v1"])
def test_version_is_a_text(version: Any) -> None:
    with pytest.raises(ConfigurationError, match="version is 'v' and a number"):
        kaleden.AsyncSession("https://host.example/skaha", "token", version=version)
