"""The sources of server and login, their order, and the server that each login goes to."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

import httpx
import pytest

import kaleden
from _auth.certificates import Authority
from _auth.saved import CANFAR, OTHER, active, document, save
from kaleden import ConfigurationError, ConnectionInfo
from support import described, session_on

URL = "https://host.example/skaha"


@pytest.fixture
def certificate(authority: Authority, home: Path) -> Path:
    """The certificate of the home directory."""
    return authority.issue().write(home / ".ssl" / "cadcproxy.pem")


def found(url: str | None = None, token: str | None = None, **arguments: object) -> ConnectionInfo:
    return kaleden.AsyncSession(url, token, **arguments).describe()  # type: ignore[arg-type]


def reason(login: ConnectionInfo, place: str) -> str:
    """Return why a source was skipped."""
    [looked] = [looked for looked in login.looked if place in looked.place and not looked.used]
    return looked.found


def test_no_server_is_an_error_with_advice() -> None:
    with pytest.raises(ConfigurationError) as caught:
        kaleden.AsyncSession()
    for way in ("canfar login", "url=", "token=", "CANFAR_URL and CANFAR_TOKEN", "LocalPlatform"):
        assert way in str(caught.value)


def test_token_without_server_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="which server"):
        kaleden.AsyncSession(token="token")
    monkeypatch.setenv("CANFAR_TOKEN", "token")
    with pytest.raises(ConfigurationError, match="CANFAR_TOKEN is set, and CANFAR_URL is not: "):
        kaleden.AsyncSession()


def test_arguments_come_before_everything(
    monkeypatch: pytest.MonkeyPatch, home: Path, certificate: Path
) -> None:
    monkeypatch.setenv("CANFAR_URL", OTHER)
    monkeypatch.setenv("CANFAR_TOKEN", "of-environment")
    save(home, document())
    login = found(URL, "token")
    assert (f"{URL}/v1", "url=", "token=") == (login.url, login.url_from, login.credential_from)


def test_environment_comes_before_the_saved_configuration(
    monkeypatch: pytest.MonkeyPatch, home: Path, certificate: Path
) -> None:
    monkeypatch.setenv("CANFAR_URL", f"{OTHER}/v1")
    monkeypatch.setenv("CANFAR_TOKEN", "of-environment")
    save(home, document())
    login = found()
    assert (f"{OTHER}/v1", "CANFAR_URL") == (login.url, login.url_from)
    assert ("bearer token", "CANFAR_TOKEN") == (login.credential, login.credential_from)


def test_saved_configuration_comes_before_the_certificate_in_the_home(
    home: Path, certificate: Path
) -> None:
    save(home, active("other", "srcnet"))
    login = found()
    assert f"{OTHER}/v0" == login.url
    assert "login 'srcnet' in ~/.canfar/config.yaml" == login.credential_from


def test_certificate_in_the_home_is_for_canfar_itself(certificate: Path) -> None:
    login = found()
    assert f"{CANFAR}/v1" == login.url
    assert ("X.509 certificate", "~/.ssl/cadcproxy.pem") == (
        login.credential,
        login.credential_from,
    )
    assert "not there" == reason(login, "~/.canfar/config.yaml")
    assert "not set" == reason(login, "CANFAR_URL")
    assert "~/.ssl/cadcproxy.pem" == found(CANFAR).credential_from
    assert "none" == found(URL).credential


def test_expired_certificate_in_the_home_is_an_error_only_if_needed(
    authority: Authority, home: Path
) -> None:
    authority.issue(begins=-7200, expires=-60).write(home / ".ssl" / "cadcproxy.pem")
    with pytest.raises(ConfigurationError, match="expired"):
        found()
    assert "expired" in reason(found(CANFAR), "~/.ssl/cadcproxy.pem")
    assert "none" == found(CANFAR).credential


@pytest.mark.parametrize("empty", ["", "  "])
def test_empty_variables_are_ignored(monkeypatch: pytest.MonkeyPatch, empty: str) -> None:
    for name in ("URL", "TOKEN", "CERTIFICATE", "TIMEOUT", "CONCURRENCY"):
        monkeypatch.setenv(f"CANFAR_{name}", empty)
    login = found(URL)
    assert ("none", 30.0, 32) == (login.credential, login.timeout, login.concurrency)
    with pytest.raises(ConfigurationError, match="which server"):
        found()


def test_limits_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANFAR_TIMEOUT", "7.5")
    monkeypatch.setenv("CANFAR_CONCURRENCY", "4")
    login = found(URL)
    assert (7.5, 4) == (login.timeout, login.concurrency)
    login = found(URL, timeout=1, concurrency=2)
    assert (1, 2) == (login.timeout, login.concurrency)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CANFAR_TIMEOUT", "abc"),
        ("CANFAR_TIMEOUT", "-1"),
        ("CANFAR_TIMEOUT", "inf"),
        ("CANFAR_TIMEOUT", "nan"),
        ("CANFAR_CONCURRENCY", "1.5"),
        ("CANFAR_CONCURRENCY", "0"),
        ("CANFAR_URL", "host/skaha"),
        ("CANFAR_TOKEN", "a b"),
        ("CANFAR_CERTIFICATE", "/nonexistent"),
    ],
)
def test_bad_variables_are_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv("CANFAR_URL", URL)
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=name):
        found()


def test_token_comes_before_certificate_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, certificate: Path
) -> None:
    monkeypatch.setenv("CANFAR_CERTIFICATE", str(certificate))
    assert "CANFAR_CERTIFICATE" == found(URL).credential_from
    monkeypatch.setenv("CANFAR_TOKEN", "token")
    login = found(URL)
    assert "CANFAR_TOKEN" == login.credential_from
    assert "the token wins" == reason(login, "CANFAR_CERTIFICATE")


def test_login_of_the_environment_goes_to_no_other_server(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    save(home, active("other", "srcnet"))
    monkeypatch.setenv("CANFAR_URL", URL)
    monkeypatch.setenv("CANFAR_TOKEN", "token")
    assert "CANFAR_TOKEN" == found("https://HOST.example:443/skaha/v0").credential_from
    login = found("https://host.example/other")
    assert "none" == login.credential
    assert f"it belongs to CANFAR_URL, which is {URL}" == reason(login, "CANFAR_TOKEN")
    assert "login 'srcnet' in ~/.canfar/config.yaml" == found(server="other").credential_from


def test_without_canfar_url_it_goes_to_the_server_that_is_found_otherwise(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    monkeypatch.setenv("CANFAR_TOKEN", "token")
    assert "CANFAR_TOKEN" == found(URL).credential_from
    save(home, active("other", "srcnet"))
    assert "CANFAR_TOKEN" == found().credential_from


def test_saved_login_goes_to_its_own_server_only(home: Path) -> None:
    save(home, active("other", "srcnet"))
    login = found(URL)
    assert "none" == login.credential
    assert "it has no login for this server" == reason(login, "config.yaml")
    assert "login 'srcnet' in ~/.canfar/config.yaml" == found(f"{OTHER}/v1").credential_from


def test_token_of_any_source_is_not_sent_in_the_clear(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CANFAR_TOKEN", "token")
    with pytest.raises(ConfigurationError, match="use https"):
        found("http://host.example/skaha")


def test_certificates_that_cannot_be_shown_are_skipped(
    monkeypatch: pytest.MonkeyPatch, certificate: Path
) -> None:
    monkeypatch.setenv("CANFAR_CERTIFICATE", str(certificate))
    login = found("http://127.0.0.1/skaha")
    assert "certificates are shown over https only" == reason(login, "CANFAR_CERTIFICATE")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    login = found(CANFAR, ssl_context=context)
    assert "load the certificate into it" in reason(login, "CANFAR_CERTIFICATE")
    assert "load the certificate into it" in reason(login, "~/.ssl/cadcproxy.pem")
    with pytest.raises(ConfigurationError, match="load the certificate into it"):
        found(CANFAR, ssl_context=context, certificate=certificate)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"auth": httpx.BasicAuth("ada", "secret"), "token": "t"}, "give it without token="),
        ({"auth": httpx.BasicAuth("ada", "secret"), "certificate": "c"}, "without certificate="),
        ({"token": "Bearer hush"}, "token=: give the token without 'Bearer '"),
        ({"retry": 3}, r"retry= takes a RetryPolicy, such as RetryPolicy\(attempts=3\)"),
        ({"server": "other"}, "without url="),
        ({"registry": ("ada", "a:b")}, "registry=: "),
        ({"registry": ("a:da", "b")}, "registry=: "),
        ({"registry": ("", "b")}, "registry=: "),
        ({"registry": "ada"}, "takes a pair"),
        ({"registry": ("ada", 5)}, "takes a pair"),
        ({"proxy": "host"}, "proxy= has no URL"),
        ({"proxy": "ftp://host"}, "proxy= has no URL"),
        ({"proxy": "http://[::1"}, "proxy= has no URL"),
        ({"proxy": 5}, "proxy= has no URL"),
    ],
    # Without the address of an object, which differs from worker to worker.
    ids=lambda value: re.sub(" at 0x[0-9a-f]+", "", str(value)),
)
def test_contradicting_arguments_are_refused(arguments: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigurationError, match=expected) as caught:
        found(URL, **arguments)  # type: ignore[arg-type]
    assert "a:b" not in str(caught.value)
    assert "hush" not in str(caught.value)


def test_context_of_the_caller_may_hold_a_certificate() -> None:
    login = found(URL, ssl_context=ssl.create_default_context())
    assert "none" == login.credential
    assert "unless ssl_context= shows a certificate" in login.credential_from


def test_transport_of_the_caller_takes_a_registry_only() -> None:
    session, transport = session_on(described, registry=("ada", "secret"))
    login = session.describe()
    assert (None, "own transport", "ada") == (login.url, login.credential, login.registry_user)
    assert "behind a transport of your own" in str(login)
    with pytest.raises(ConfigurationError, match="no certificate="):
        kaleden.AsyncSession(transport=transport, certificate="proxy.pem")


def test_unknown_home_is_like_an_empty_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert "none" == found(URL).credential
    with pytest.raises(ConfigurationError, match="which server"):
        found()


def test_description_has_all_parts(home: Path, certificate: Path) -> None:
    save(home, document(registry={"url": "https://images", "username": "ada", "secret": "hush"}))
    login = found()
    until = f"{login.expires:%Y-%m-%d %H:%M} UTC"
    assert str(login).splitlines() == [
        f"server      {CANFAR}/v1 (server 'canfar' in ~/.canfar/config.yaml)",
        f"credential  X.509 certificate (login 'cadc' in ~/.canfar/config.yaml), until {until}",
        "registry    ada",
        "proxy       none",
        "limits      32 requests at once, 30 s each; 8 creates, 180 s each",
        "  - arguments: no url=, no server=",
        "  - CANFAR_URL: not set",
        f"  + server 'canfar' in ~/.canfar/config.yaml: {CANFAR}/v1",
        "  - arguments: no token=, no certificate=",
        "  - CANFAR_TOKEN, CANFAR_CERTIFICATE: not set",
        "  + login 'cadc' in ~/.canfar/config.yaml: X.509 certificate",
        "  + registry in ~/.canfar/config.yaml: user ada",
    ]
