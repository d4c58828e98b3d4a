"""Tests that a login saved by canfar is found and used."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread

import kaleden
from kaleden.local import LocalPlatform
from peers.remote import PYTHONS, require_peers

require_peers("canfar")

SAVE = Path(__file__).with_name("save_login.py")
PRIVATE = "images.canfar.net/private/lab:1"


@pytest.fixture
async def platform(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[LocalPlatform]:
    """Start a platform that uses https."""
    async with LocalPlatform(tls=True, user="ada", grace=0.1) as platform:
        monkeypatch.setenv("SSL_CERT_FILE", str(platform.ca_pem))
        yield platform


async def save_login(home: Path, url: str, identity: dict[str, Any]) -> bytes:
    """Save a login with canfar, and return the contents of its file."""
    configuration = {
        "active": {"authentication": "ours", "server": "here"},
        "authentication": {"ours": {"idp": "ours", **identity}},
        "servers": {"here": {"name": "here", "idp": "ours", "url": url, "version": "v1"}},
        "registry": {"url": "https://images.canfar.net", "username": "ada", "secret": "hush"},
    }

    def save() -> None:
        subprocess.run(
            [os.environ[PYTHONS["canfar"]], str(SAVE)],
            input=json.dumps(configuration).encode(),
            env={"HOME": str(home), "PATH": os.defpath},
            check=True,
        )

    await to_thread.run_sync(save)
    return (home / ".canfar" / "config.yaml").read_bytes()


async def use_login(platform: LocalPlatform) -> kaleden.ConnectionInfo:
    """Launch with the saved login only, which includes credentials for the registry."""
    async with kaleden.AsyncSession() as session:
        created = await session.create("lab", PRIVATE, cmd="true")
        assert created.ok, created
        assert ("ada", "hush") == platform.registry_login()
        assert (await session.destroy(created)).ok
        return session.describe()


async def test_login_by_certificate_is_used(platform: LocalPlatform, home: Path) -> None:
    path = platform.issue_certificate(path=home / "proxy.pem")
    written = await save_login(home, platform.url, {"mode": "x509", "path": str(path)})
    login = await use_login(platform)
    assert (f"{platform.url}/v1", "X.509 certificate") == (login.url, login.credential)
    assert "login 'ours' in ~/.canfar/config.yaml" == login.credential_from
    assert "ada" == login.registry_user
    assert written == (home / ".canfar" / "config.yaml").read_bytes()


async def test_login_by_token_is_used(platform: LocalPlatform, home: Path) -> None:
    expiry = {"access": time.time() + 3600, "refresh": time.time() + 3600}
    token = {"access": platform.token, "refresh": "none of our business"}
    identity = {"mode": "oidc", "token": token, "expiry": expiry}
    written = await save_login(home, platform.url, identity)
    login = await use_login(platform)
    assert (f"{platform.url}/v1", "bearer token") == (login.url, login.credential)
    assert login.expires is not None
    assert int(expiry["access"]) == int(login.expires.timestamp())
    assert written == (home / ".canfar" / "config.yaml").read_bytes()


async def test_expired_login_by_token_is_rejected(platform: LocalPlatform, home: Path) -> None:
    identity = {
        "mode": "oidc",
        "token": {"access": platform.token, "refresh": "none of our business"},
        "expiry": {"access": time.time() - 60, "refresh": time.time() + 3600},
    }
    await save_login(home, platform.url, identity)
    with pytest.raises(kaleden.ConfigurationError, match="canfar login"):
        kaleden.AsyncSession()
