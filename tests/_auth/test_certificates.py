"""A certificate file is checked before it is used, and the message names the fault."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

import kaleden
from _auth.certificates import Authority
from kaleden import ConfigurationError
from kaleden._auth._certificates import read_certificate

URL = "https://host.example/skaha"


def refused(path: Path) -> str:
    """Return the message of a client that refuses a certificate."""
    with pytest.raises(ConfigurationError) as caught:
        kaleden.AsyncSession(URL, certificate=path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_valid_certificate_is_used_and_its_expiry_shown(
    authority: Authority, tmp_path: Path
) -> None:
    path = authority.issue(expires=86400).write(tmp_path / "proxy.pem")
    login = kaleden.AsyncSession(URL, certificate=str(path)).describe()
    assert ("X.509 certificate", "certificate=") == (login.credential, login.credential_from)
    assert login.expires == read_certificate(path).expires
    assert f", until {login.expires:%Y-%m-%d %H:%M} UTC" in str(login)


def test_home_directory_has_its_short_name(authority: Authority, home: Path) -> None:
    authority.issue().write(home / "proxy.pem")
    kaleden.AsyncSession(URL, certificate="~/proxy.pem")


def test_key_and_chain_may_come_first(authority: Authority, tmp_path: Path) -> None:
    pem = authority.issue()
    path = pem.write(tmp_path / "proxy.pem", "a line of text\n" + pem.key + pem.certificate)
    assert kaleden.AsyncSession(URL, certificate=path).describe().expires is not None


def test_file_without_key_is_refused(authority: Authority, tmp_path: Path) -> None:
    pem = authority.issue()
    path = pem.write(tmp_path / "proxy.pem", pem.certificate)
    assert "there is no private key" in refused(path)


def test_file_without_certificate_is_refused(authority: Authority, tmp_path: Path) -> None:
    pem = authority.issue()
    for content in (pem.key, "", "\x00\xff"):
        path = pem.write(tmp_path / "proxy.pem", content)
        assert "there is no certificate" in refused(path)


def test_encrypted_key_is_refused_without_a_prompt(authority: Authority, tmp_path: Path) -> None:
    pem = authority.issue()
    key = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIF\n-----END ENCRYPTED PRIVATE KEY-----\n"
    assert "password" in refused(pem.write(tmp_path / "new.pem", pem.certificate + key))
    key = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: DES-EDE3-CBC,00\n"
    assert "password" in refused(pem.write(tmp_path / "old.pem", pem.certificate + key))


def test_expired_certificate_is_refused(authority: Authority, tmp_path: Path) -> None:
    path = authority.issue(begins=-7200, expires=-60).write(tmp_path / "proxy.pem")
    message = refused(path)
    assert "expired at 20" in message
    assert "canfar login" in message


def test_certificate_of_the_future_is_refused(authority: Authority, tmp_path: Path) -> None:
    path = authority.issue(begins=3600, expires=7200).write(tmp_path / "proxy.pem")
    assert "not valid before 20" in refused(path)


def test_damaged_certificate_is_refused(authority: Authority, tmp_path: Path) -> None:
    pem = authority.issue()
    lines = pem.certificate.splitlines()
    for middle in (["AAAA"], ["§§§§"], [lines[1]], []):
        content = "\n".join([lines[0], *middle, "-----END CERTIFICATE-----", pem.key])
        assert "damaged" in refused(pem.write(tmp_path / "proxy.pem", content))


def test_missing_file_and_directory_are_refused(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "proxy.pem")
    assert "is no file" in refused(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_without_permission_is_refused(authority: Authority, tmp_path: Path) -> None:
    assert "cannot be read" in refused(authority.issue().write(tmp_path / "proxy.pem", mode=0))


def test_unreadable_file_is_refused(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = authority.issue().write(tmp_path / "proxy.pem")
    monkeypatch.setattr(Path, "open", fail)
    assert "cannot be read: Permission denied" in refused(path)


@pytest.mark.parametrize("mode", [0o666, 0o640, 0o604])
def test_file_that_others_may_read_is_used_with_a_warning(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int
) -> None:
    path = authority.issue().write(tmp_path / "proxy.pem", mode=mode)
    login = kaleden.AsyncSession(URL, certificate=path).describe()
    [record] = caplog.records
    assert ("kaleden", logging.WARNING) == (record.name, record.levelno)
    assert f"chmod 600 {path}" in record.message
    assert "others may read its key" in str(login)


def test_certificates_need_https(authority: Authority, tmp_path: Path) -> None:
    path = authority.issue().write(tmp_path / "proxy.pem")
    with pytest.raises(ConfigurationError, match="over https only"):
        kaleden.AsyncSession("http://127.0.0.1/skaha", certificate=path)


def test_token_comes_before_certificate(tmp_path: Path) -> None:
    # The certificate is not even looked at.
    session = kaleden.AsyncSession(URL, "token", certificate=tmp_path / "none.pem")
    assert "bearer token" == session.describe().credential
    assert "- certificate=: the token wins" in str(session.describe())


async def test_certificate_removed_later_is_refused_at_entry(
    authority: Authority, tmp_path: Path
) -> None:
    path = authority.issue().write(tmp_path / "proxy.pem")
    session = kaleden.AsyncSession(URL, certificate=path)
    path.unlink()
    with pytest.raises(ConfigurationError, match="cannot be used: No such file"):
        async with session:
            pass


async def test_key_of_another_certificate_is_refused_at_entry(
    authority: Authority, tmp_path: Path
) -> None:
    path = authority.issue().write(
        tmp_path / "proxy.pem", authority.issue().certificate + authority.issue().key
    )
    with pytest.raises(ConfigurationError, match="mismatch"):
        async with kaleden.AsyncSession(URL, certificate=path):
            pass


async def test_unreadable_authorities_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent")
    with pytest.raises(ConfigurationError, match="SSL_CERT_FILE"):
        async with kaleden.AsyncSession(URL):
            pass
