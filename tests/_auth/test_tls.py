"""Logins at a platform that serves https: each kind that works, and each that does not."""

from __future__ import annotations

import ssl
import threading
from collections.abc import AsyncGenerator
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

import pytest

pytest.importorskip("anycorn")

import kaleden
from _auth.certificates import Authority
from kaleden import ConfigurationError, Failure, FailureKind, SessionInfo
from kaleden._auth._certificates import read_certificate
from kaleden._auth._tls import OwnTls
from kaleden.local import LocalPlatform
from support import PLAIN_BACKENDS

PRIVATE = "images.canfar.net/private/lab:1"


@pytest.fixture(params=PLAIN_BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def platform(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[LocalPlatform]:
    """A platform with an authority that the environment trusts."""
    async with LocalPlatform(tls=True, user="ada") as platform:
        monkeypatch.setenv("SSL_CERT_FILE", str(platform.ca_pem))
        platform.add_user("bob")
        yield platform


class InTwoHours(datetime):
    """A clock that is two hours ahead."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> InTwoHours:
        return super().now(tz) + timedelta(hours=2)


async def whose(session: kaleden.AsyncSession) -> str:
    """Launch a session, and return its owner."""
    [created] = (await session.create("notes", "skaha/lab:1", kind="notebook")).values
    [info] = await session.info(created)
    assert isinstance(info, kaleden.Success)
    assert isinstance(info.value, SessionInfo)
    return str(info.value.raw["userid"])


async def only_failure(session: kaleden.AsyncSession) -> Failure:
    [outcome] = await session.logs("abcdefgh")
    assert isinstance(outcome, Failure), outcome
    return outcome


async def test_token_is_accepted(platform: LocalPlatform) -> None:
    async with kaleden.AsyncSession(platform.url, platform.token_for("bob")) as session:
        assert "bob" == await whose(session)


async def test_proxy_certificate_is_accepted(platform: LocalPlatform) -> None:
    path = platform.issue_certificate("bob")
    async with kaleden.AsyncSession(platform.url, certificate=path) as session:
        assert "bob" == await whose(session)


async def test_context_of_the_caller_is_used(
    platform: LocalPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    context = platform.ssl_context(platform.issue_certificate("bob"))
    async with kaleden.AsyncSession(platform.url, ssl_context=context) as session:
        assert "none" == session.describe().credential
        assert "bob" == await whose(session)


async def test_tokens_of_a_function_with_one_rotation(platform: LocalPlatform) -> None:
    tokens = [platform.token_for("bob"), platform.token_for("bob")]
    asked = iter(tokens)
    async with kaleden.AsyncSession(platform.url, lambda: next(asked)) as session:
        assert "bob" == await whose(session)
        platform.revoke(tokens[0])
        assert "bob" == await whose(session)


async def test_credentials_for_a_registry_go_with_creates(platform: LocalPlatform) -> None:
    async with kaleden.AsyncSession(platform.url, platform.token) as session:
        [failure] = (await session.create("lab", PRIVATE, cmd="true")).failures.values()
        assert "No authentication provided" in failure.message
    registry = ("ada@example.org", "hush")
    async with kaleden.AsyncSession(platform.url, platform.token, registry=registry) as session:
        assert (await session.create("lab", PRIVATE, cmd="true")).ok
        assert "ada@example.org" == session.describe().registry_user
    assert registry == platform.registry_login("ada")


async def test_untrusted_authority_is_a_failure(
    platform: LocalPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    async with kaleden.AsyncSession(platform.url, platform.token) as session:
        failure = await only_failure(session)
        [launch] = (await session.create("lab", "skaha/lab:1", cmd="true")).failures.values()
    assert (FailureKind.CONNECT_FAILED, False) == (failure.kind, failure.sent)
    assert "certificate" in failure.message
    assert FailureKind.CONNECT_FAILED == launch.kind
    assert (1, 1) == (failure.attempts, launch.attempts)


async def test_certificate_of_another_authority_is_refused(
    platform: LocalPlatform, authority: Authority, tmp_path: Path
) -> None:
    path = authority.issue().write(tmp_path / "proxy.pem")
    async with kaleden.AsyncSession(platform.url, certificate=path) as session:
        failure = await only_failure(session)
    assert FailureKind.CONNECT_FAILED == failure.kind
    assert 1 == failure.attempts
    assert "unknown ca" in failure.message.lower().replace("_", " ")


async def test_expired_certificate_is_refused_by_the_client(platform: LocalPlatform) -> None:
    path = platform.issue_certificate("bob", expires_in=-60)
    with pytest.raises(ConfigurationError, match="expired at"):
        kaleden.AsyncSession(platform.url, certificate=path)


async def test_expired_certificate_is_refused_by_the_server(platform: LocalPlatform) -> None:
    context = platform.ssl_context(platform.issue_certificate("bob", expires_in=-60))
    async with kaleden.AsyncSession(platform.url, ssl_context=context) as session:
        failure = await only_failure(session)
    assert FailureKind.CONNECT_FAILED == failure.kind
    assert 1 == failure.attempts
    assert "expired" in failure.message


async def test_certificate_that_expires_while_the_client_is_open(
    platform: LocalPlatform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = platform.issue_certificate("ada", path=tmp_path / "proxy.pem")
    async with kaleden.AsyncSession(platform.url, certificate=path) as session:
        assert "ada" == await whose(session)
        monkeypatch.setattr("kaleden._auth._certificates.datetime", InTwoHours)
        failure = await only_failure(session)
        assert (FailureKind.NOT_AUTHENTICATED, False) == (failure.kind, failure.sent)
        assert "expired at" in failure.message
        assert "canfar login" in failure.message


async def test_certificate_that_was_replaced_is_read_again(
    platform: LocalPlatform, tmp_path: Path
) -> None:
    path = platform.issue_certificate("ada", path=tmp_path / "proxy.pem")
    async with kaleden.AsyncSession(platform.url, certificate=path) as session:
        assert "ada" == await whose(session)
        before = session.describe().expires
        platform.issue_certificate("bob", path=path, expires_in=1800)
        # A connection made with another login is not used.
        assert "bob" == await whose(session)
        after = session.describe().expires
        assert before is not None
        assert after is not None
        assert after < before


async def test_certificate_that_was_renewed_before_the_client_is_entered(
    platform: LocalPlatform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = platform.issue_certificate("ada", path=tmp_path / "proxy.pem", expires_in=3600)
    session = kaleden.AsyncSession(platform.url, certificate=path)
    platform.issue_certificate("bob", path=path, expires_in=4 * 3600)
    monkeypatch.setattr("kaleden._auth._certificates.datetime", InTwoHours)
    async with session:
        assert "bob" == await whose(session)


async def test_replacement_that_cannot_be_used_is_passed_over(
    platform: LocalPlatform, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = platform.issue_certificate("ada", path=tmp_path / "proxy.pem")
    async with kaleden.AsyncSession(platform.url, certificate=path) as session:
        assert "ada" == await whose(session)
        path.write_text("half of a")
        for _ in range(3):
            assert "ada" == await whose(session)
        path.unlink()
        assert "ada" == await whose(session)
        [record] = [each for each in caplog.records if each.name == "kaleden"]
        assert "there is no certificate" in record.message
        platform.issue_certificate("bob", path=path)
        assert "bob" == await whose(session)


@pytest.mark.parametrize("anonymous", [400, 401])
async def test_anonymous_request_is_refused(
    anonymous: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with LocalPlatform(tls=True, anonymous=anonymous) as platform:  # type: ignore[arg-type]
        monkeypatch.setenv("SSL_CERT_FILE", str(platform.ca_pem))
        async with kaleden.AsyncSession(platform.url) as session:
            failure = await only_failure(session)
    assert (FailureKind.NOT_AUTHENTICATED, anonymous) == (failure.kind, failure.status)


async def test_refused_login_is_named_without_secrets(
    platform: LocalPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with kaleden.AsyncSession(platform.url) as session:
        with pytest.raises(kaleden.NotAuthenticated, match="no login was sent"):
            await session.fetch()
    monkeypatch.setenv("CANFAR_TOKEN", "hush")
    async with kaleden.AsyncSession(platform.url) as session:
        with pytest.raises(kaleden.NotAuthenticated) as caught:
            await session.fetch()
    assert "the bearer token of CANFAR_TOKEN was refused" in str(caught.value)
    assert "hush" not in str(caught.value)


async def test_unknown_token_is_refused(platform: LocalPlatform) -> None:
    async with kaleden.AsyncSession(platform.url, "unknown") as session:
        failure = await only_failure(session)
    assert (FailureKind.NOT_AUTHENTICATED, 401) == (failure.kind, failure.status)


async def test_unauthorized_user_is_refused(platform: LocalPlatform) -> None:
    platform.add_user("eve", authorized=False)
    async with kaleden.AsyncSession(platform.url, platform.token_for("eve")) as session:
        failure = await only_failure(session)
    assert (FailureKind.NOT_AUTHORIZED, 403) == (failure.kind, failure.status)


async def test_context_is_made_once_and_off_the_event_loop(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[bool] = []

    def make(path: Path | None) -> ssl.SSLContext:
        made.append(threading.current_thread() is threading.main_thread())
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    monkeypatch.setattr("kaleden._auth._tls.make_context", make)
    path = authority.issue().write(tmp_path / "proxy.pem")
    tls = OwnTls(read_certificate(path))
    contexts = [await tls.context() for _ in range(5)]
    assert [contexts[0]] * 5 == contexts
    assert [False] == made
