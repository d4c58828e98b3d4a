"""Authentication at a served platform: https, certificates, several users and their tokens."""

from __future__ import annotations

import base64
import logging
import ssl
import stat
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import trustme
from anyio.abc import SocketStream
from anyio.streams.tls import TLSStream
from attrs import define

from kaleden.local import LocalPlatform
from local.serving import Clock
from support import FULL_IMAGE

PRIVATE = "images.canfar.net/private/lab:1"


@pytest.fixture
async def platform() -> AsyncGenerator[LocalPlatform]:
    async with LocalPlatform(tls=True, user="ada", clock=Clock()) as platform:
        yield platform


@define
class Client:
    """A client with a certificate, a token, or no credentials."""

    http: httpx.AsyncClient

    async def list_sessions(self) -> tuple[int, str]:
        response = await self.http.get("/v1/session")
        return response.status_code, response.headers.get("x-vo-authenticated", response.text)

    async def create(self, **fields: str) -> httpx.Response:
        form = {"name": "n", "image": FULL_IMAGE, "cmd": "sleep", "args": "1000", **fields}
        return await self.http.post("/v1/session", data=form)


@asynccontextmanager
async def open_client(
    platform: LocalPlatform, token: str | None = None, certificate: Path | None = None
) -> AsyncGenerator[Client]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    context = platform.ssl_context(certificate)
    async with httpx.AsyncClient(
        base_url=platform.url, headers=headers, verify=context, trust_env=False
    ) as http:
        yield Client(http)


async def open_socket(platform: LocalPlatform) -> SocketStream:
    port = httpx.URL(platform.url).port
    assert port is not None
    return await anyio.connect_tcp("127.0.0.1", port)


async def receive_alert(platform: LocalPlatform, certificate: Path) -> str:
    """Return the TLS alert that the server sends when it rejects the certificate."""
    stream = await open_socket(platform)
    context = platform.ssl_context(certificate)
    try:
        tls = await TLSStream.wrap(stream, hostname="127.0.0.1", ssl_context=context)
        with pytest.raises(ssl.SSLError) as caught:
            await tls.receive()
    finally:
        await anyio.aclose_forcefully(stream)
    return str(caught.value)


async def test_token_is_accepted_over_https(platform: LocalPlatform) -> None:
    assert platform.url.startswith("https://127.0.0.1:")
    async with open_client(platform, platform.token) as client:
        assert (200, "ada") == await client.list_sessions()


async def test_proxy_certificate_is_accepted(platform: LocalPlatform) -> None:
    async with open_client(platform, certificate=platform.issue_certificate()) as client:
        assert (200, "ada") == await client.list_sessions()


async def test_proxy_certificate_file_is_readable_only_by_owner(
    platform: LocalPlatform, tmp_path: Path
) -> None:
    path = platform.issue_certificate(path=tmp_path / "cadcproxy.pem")
    text = path.read_text()
    assert tmp_path / "cadcproxy.pem" == path
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert (2, 1) == (text.count("BEGIN CERTIFICATE"), text.count("BEGIN PRIVATE KEY"))
    platform.issue_certificate(path=path)
    assert text != path.read_text()
    assert [path] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("times", "text"),
    [({"expires_in": -60}, "certificate expired"), ({"starts_in": 60}, "bad certificate")],
)
async def test_certificate_outside_validity_sends_alert(
    platform: LocalPlatform, times: dict[str, Any], text: str
) -> None:
    assert text in await receive_alert(platform, platform.issue_certificate(**times))


async def test_certificate_of_other_authority_sends_alert(
    platform: LocalPlatform, tmp_path: Path
) -> None:
    foreign = trustme.CA().issue_cert("ada@localhost", common_name="ada")
    foreign.private_key_and_cert_chain_pem.write_to_path(tmp_path / "foreign.pem")
    assert "unknown ca" in await receive_alert(platform, tmp_path / "foreign.pem")


async def test_client_with_other_authority_rejects_server(platform: LocalPlatform) -> None:
    context = ssl.create_default_context()
    async with await open_socket(platform) as stream:
        with pytest.raises(ssl.SSLCertVerificationError, match="CERTIFICATE_VERIFY_FAILED"):
            await TLSStream.wrap(stream, hostname="localhost", ssl_context=context)


async def test_request_without_credentials_is_challenged(platform: LocalPlatform) -> None:
    async with open_client(platform) as client:
        response = await client.http.get("/v1/session")
    assert (401, "Unauthorized\n") == (response.status_code, response.text)
    challenges = response.headers.get_list("www-authenticate")
    schemes = ["Bearer", "ivoa_x509", "ivoa_cookie", "ivoa_bearer"]
    assert schemes == [challenge.split()[0] for challenge in challenges]


async def test_newer_server_answers_anonymous_request_with_400() -> None:
    async with LocalPlatform(anonymous=400) as platform:
        async with httpx.AsyncClient() as http:
            response = await http.get(f"{platform.url}/v1/session")
            wrong = {"Authorization": "Bearer wrong"}
            refused = await http.get(f"{platform.url}/v1/session", headers=wrong)
    assert (400, "cannot get group memberships for anonymous\n") == (
        response.status_code,
        response.text,
    )
    assert 401 == refused.status_code


async def test_revoked_token_is_rejected_and_new_one_accepted(platform: LocalPlatform) -> None:
    new = platform.token_for()
    platform.revoke(platform.token)
    async with open_client(platform, platform.token) as client:
        assert (401, "Unauthorized\n") == await client.list_sessions()
    async with open_client(platform, new) as client:
        assert (200, "ada") == await client.list_sessions()


async def test_expired_token_is_rejected(platform: LocalPlatform) -> None:
    async with open_client(platform, platform.token_for(expires_in=0)) as client:
        assert (401, "Unauthorized\n") == await client.list_sessions()


async def test_unauthorized_user_gets_403(platform: LocalPlatform) -> None:
    platform.add_user("eve", authorized=False)
    forbidden = (403, "Not authorized to use the skaha system\n")
    async with open_client(platform, platform.token_for("eve")) as client:
        assert forbidden == await client.list_sessions()
    async with open_client(platform, certificate=platform.issue_certificate("eve")) as client:
        assert forbidden == await client.list_sessions()


async def test_users_access_only_their_own_sessions(platform: LocalPlatform) -> None:
    platform.add_user("bob")
    async with (
        open_client(platform, platform.token) as ada,
        open_client(platform, certificate=platform.issue_certificate("bob")) as bob,
    ):
        id_ = (await ada.create()).text.strip()
        own = f"/v1/session/{id_}"
        assert [] == (await bob.http.get("/v1/session")).json()
        assert 404 == (await bob.http.get(own)).status_code
        assert 404 == (await bob.http.get(own, params={"view": "events"})).status_code
        log = await bob.http.get(own, params={"view": "logs"})
        assert (200, "") == (log.status_code, log.text)
        assert 400 == (await bob.http.post(own, data={"action": "renew"})).status_code
        assert 200 == (await bob.http.delete(own)).status_code
        assert 200 == (await ada.http.get(own)).status_code
        [listed] = (await bob.http.get("/v1/session", params={"view": "all"})).json()
        assert (
            {"userid", "type", "status"}
            <= listed.keys()
            <= {
                "userid",
                "type",
                "status",
                "startTime",
            }
        )


async def test_session_limit_can_be_set_for_each_user(platform: LocalPlatform) -> None:
    platform.add_user("bob", max_interactive_sessions=1)
    async with open_client(platform, platform.token_for("bob")) as bob:
        assert 200 == (await bob.create(type="notebook")).status_code
        refused = await bob.create(type="notebook")
        text = "User bob has reached the maximum of 1 active sessions.\n"
        assert (400, text) == (refused.status_code, refused.text)
        platform.add_user("bob")
        assert 200 == (await bob.create(type="notebook")).status_code


async def test_private_image_needs_registry_login(platform: LocalPlatform) -> None:
    login: dict[str, Any] = {"x-skaha-registry-auth": base64.b64encode(b"ada:s3cret").decode()}
    async with open_client(platform, platform.token) as client:
        assert 400 == (await client.create(image=PRIVATE)).status_code
        assert platform.registry_login() is None
        client.http.headers.update(login)
        assert 200 == (await client.create(image=PRIVATE)).status_code
    assert ("ada", "s3cret") == platform.registry_login()


async def test_failed_handshakes_are_logged_only_for_other_listeners(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logger = logging.getLogger("anyio.streams.tls")
    async with LocalPlatform(tls=True) as platform, LocalPlatform(tls=True) as other:
        logger.error("other")
        certificate = platform.issue_certificate(expires_in=-60)
        assert "certificate expired" in await receive_alert(platform, certificate)
        assert "unknown ca" in await receive_alert(other, platform.issue_certificate())
    logger.error("other, later")
    assert ["other", "other, later"] == caplog.messages
    assert [] == logger.filters


async def test_block_exits_while_clients_stay_connected() -> None:
    async with LocalPlatform(tls=True) as platform:
        silent, stream = await open_socket(platform), await open_socket(platform)
        context = platform.ssl_context()
        kept = await TLSStream.wrap(stream, hostname="localhost", ssl_context=context)
        await kept.send(b"GET /skaha/availability HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await kept.receive()
        ca = platform.ca_pem
    assert not ca.exists()
    await anyio.aclose_forcefully(kept)
    await silent.aclose()


async def test_certificates_need_entered_platform_with_tls() -> None:
    for platform in (LocalPlatform(), LocalPlatform(tls=True)):
        with pytest.raises(RuntimeError, match="tls=True"):
            _ = platform.ca_pem
        with pytest.raises(RuntimeError, match="tls=True"):
            platform.issue_certificate()
        assert platform.registry_login() is None


async def test_tokens_and_certificates_need_added_user(platform: LocalPlatform) -> None:
    with pytest.raises(ValueError, match="add_user"):
        platform.token_for("bob")
    with pytest.raises(ValueError, match="add_user"):
        platform.issue_certificate("bob")


async def test_repr_has_no_secrets(platform: LocalPlatform) -> None:
    assert platform.token not in repr(platform)
    assert "PRIVATE KEY" not in repr(vars(platform))
