"""A login that canfar has saved is found, and used as it is."""

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
from peers.remote import PYTHONS, need

need("canfar")

SAVE = Path(__file__).with_name("save_login.py")
PRIVATE = "images.canfar.net/private/lab:1"


@pytest.fixture
async def platform(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[LocalPlatform]:
    """A platform that is reached over https."""
    async with LocalPlatform(tls=True, user="ada", grace=0.1) as platform:
        monkeypatch.setenv("SSL_CERT_FILE", str(platform.ca_pem))
        yield platform


async def saved(home: Path, url: str, identity: dict[str, Any]) -> bytes:
    """Let canfar save a login, and return what it wrote."""
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


async def use(platform: LocalPlatform) -> kaleden.ConnectionInfo:
    """Launch with nothing but what was saved, credentials for the registry included."""
    async with kaleden.AsyncSession() as session:
        created = await session.create("lab", PRIVATE, cmd="true")
        assert created.ok, created
        assert ("ada", "hush") == platform.registry_login()
        assert (await session.destroy(created)).ok
        return session.describe()


async def test_a_login_by_certificate(platform: LocalPlatform, home: Path) -> None:
    path = platform.issue_certificate(path=home / "proxy.pem")
    written = await saved(home, platform.url, {"mode": "x509", "path": str(path)})
    login = await use(platform)
    assert (f"{platform.url}/v1", "X.509 certificate") == (login.url, login.credential)
    assert "login 'ours' in ~/.canfar/config.yaml" == login.credential_from
    assert "ada" == login.registry_user
    assert written == (home / ".canfar" / "config.yaml").read_bytes()


async def test_a_login_by_token(platform: LocalPlatform, home: Path) -> None:
    expiry = {"access": time.time() + 3600, "refresh": time.time() + 3600}
    token = {"access": platform.token, "refresh": "none of our business"}
    identity = {"mode": "oidc", "token": token, "expiry": expiry}
    written = await saved(home, platform.url, identity)
    login = await use(platform)
    assert (f"{platform.url}/v1", "bearer token") == (login.url, login.credential)
    assert login.expires is not None
    assert int(expiry["access"]) == int(login.expires.timestamp())
    assert written == (home / ".canfar" / "config.yaml").read_bytes()


async def test_an_expired_login_by_token(platform: LocalPlatform, home: Path) -> None:
    identity = {
        "mode": "oidc",
        "token": {"access": platform.token, "refresh": "none of our business"},
        "expiry": {"access": time.time() - 60, "refresh": time.time() + 3600},
    }
    await saved(home, platform.url, identity)
    with pytest.raises(kaleden.ConfigurationError, match="canfar login"):
        kaleden.AsyncSession()
