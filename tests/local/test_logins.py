"""Logging in at a platform that is served: https, certificates, several users and their tokens."""

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
from local.worlds import IMAGE, Clock

PRIVATE = "images.canfar.net/private/lab:1"


@pytest.fixture
async def platform() -> AsyncGenerator[LocalPlatform]:
    async with LocalPlatform(tls=True, user="ada", clock=Clock()) as platform:
        yield platform


@define
class Asker:
    """A client that shows a certificate, or a token, or nothing."""

    http: httpx.AsyncClient

    async def list(self) -> tuple[int, str]:
        reply = await self.http.get("/v1/session")
        return reply.status_code, reply.headers.get("x-vo-authenticated", reply.text)

    async def create(self, **fields: str) -> httpx.Response:
        form = {"name": "n", "image": IMAGE, "cmd": "sleep", "args": "1000", **fields}
        return await self.http.post("/v1/session", data=form)


@asynccontextmanager
async def asking(
    platform: LocalPlatform, token: str | None = None, certificate: Path | None = None
) -> AsyncGenerator[Asker]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    context = platform.ssl_context(certificate)
    async with httpx.AsyncClient(
        base_url=platform.url, headers=headers, verify=context, trust_env=False
    ) as http:
        yield Asker(http)


async def dial(platform: LocalPlatform) -> SocketStream:
    port = httpx.URL(platform.url).port
    assert port is not None
    return await anyio.connect_tcp("127.0.0.1", port)


async def alert(platform: LocalPlatform, certificate: Path) -> str:
    """What the server says to a client that shows a certificate which it does not take."""
    stream = await dial(platform)
    context = platform.ssl_context(certificate)
    try:
        tls = await TLSStream.wrap(stream, hostname="127.0.0.1", ssl_context=context)
        with pytest.raises(ssl.SSLError) as caught:
            await tls.receive()
    finally:
        await anyio.aclose_forcefully(stream)
    return str(caught.value)


async def test_a_token_opens_over_https(platform: LocalPlatform) -> None:
    assert platform.url.startswith("https://127.0.0.1:")
    async with asking(platform, platform.token) as asker:
        assert (200, "ada") == await asker.list()


async def test_a_proxy_certificate_opens(platform: LocalPlatform) -> None:
    async with asking(platform, certificate=platform.issue_certificate()) as asker:
        assert (200, "ada") == await asker.list()


async def test_a_proxy_certificate_is_a_file_of_its_owners_only(
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
async def test_a_certificate_out_of_its_time_is_an_alert(
    platform: LocalPlatform, times: dict[str, Any], text: str
) -> None:
    assert text in await alert(platform, platform.issue_certificate(**times))


async def test_a_certificate_of_another_authority_is_an_alert(
    platform: LocalPlatform, tmp_path: Path
) -> None:
    foreign = trustme.CA().issue_cert("ada@localhost", common_name="ada")
    foreign.private_key_and_cert_chain_pem.write_to_path(tmp_path / "foreign.pem")
    assert "unknown ca" in await alert(platform, tmp_path / "foreign.pem")


async def test_who_trusts_another_authority_does_not_connect(platform: LocalPlatform) -> None:
    stranger = ssl.create_default_context()
    async with await dial(platform) as stream:
        with pytest.raises(ssl.SSLCertVerificationError, match="CERTIFICATE_VERIFY_FAILED"):
            await TLSStream.wrap(stream, hostname="localhost", ssl_context=stranger)


async def test_who_shows_nothing_is_challenged(platform: LocalPlatform) -> None:
    async with asking(platform) as asker:
        reply = await asker.http.get("/v1/session")
    assert (401, "Unauthorized\n") == (reply.status_code, reply.text)
    challenges = reply.headers.get_list("www-authenticate")
    schemes = ["Bearer", "ivoa_x509", "ivoa_cookie", "ivoa_bearer"]
    assert schemes == [challenge.split()[0] for challenge in challenges]


async def test_a_newer_server_answers_400_to_who_shows_nothing() -> None:
    async with LocalPlatform(anonymous=400) as platform:
        async with httpx.AsyncClient() as http:
            reply = await http.get(f"{platform.url}/v1/session")
            wrong = {"Authorization": "Bearer wrong"}
            refused = await http.get(f"{platform.url}/v1/session", headers=wrong)
    assert (400, "cannot get group memberships for anonymous\n") == (reply.status_code, reply.text)
    assert 401 == refused.status_code


async def test_a_rotated_token_is_refused_and_the_new_one_taken(platform: LocalPlatform) -> None:
    new = platform.token_for()
    platform.revoke(platform.token)
    async with asking(platform, platform.token) as asker:
        assert (401, "Unauthorized\n") == await asker.list()
    async with asking(platform, new) as asker:
        assert (200, "ada") == await asker.list()


async def test_an_expired_token_is_refused(platform: LocalPlatform) -> None:
    async with asking(platform, platform.token_for(expires_in=0)) as asker:
        assert (401, "Unauthorized\n") == await asker.list()


async def test_who_is_not_in_the_group_is_forbidden(platform: LocalPlatform) -> None:
    platform.add_user("eve", authorized=False)
    forbidden = (403, "Not authorized to use the skaha system\n")
    async with asking(platform, platform.token_for("eve")) as asker:
        assert forbidden == await asker.list()
    async with asking(platform, certificate=platform.issue_certificate("eve")) as asker:
        assert forbidden == await asker.list()


async def test_users_see_and_touch_their_own_sessions_only(platform: LocalPlatform) -> None:
    platform.add_user("bob")
    async with (
        asking(platform, platform.token) as ada,
        asking(platform, certificate=platform.issue_certificate("bob")) as bob,
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
        [shown] = (await bob.http.get("/v1/session", params={"view": "all"})).json()
        assert (
            {"userid", "type", "status"}
            <= shown.keys()
            <= {
                "userid",
                "type",
                "status",
                "startTime",
            }
        )


async def test_each_user_may_have_a_quota(platform: LocalPlatform) -> None:
    platform.add_user("bob", max_interactive_sessions=1)
    async with asking(platform, platform.token_for("bob")) as bob:
        assert 200 == (await bob.create(type="notebook")).status_code
        refused = await bob.create(type="notebook")
        text = "User bob has reached the maximum of 1 active sessions.\n"
        assert (400, text) == (refused.status_code, refused.text)
        platform.add_user("bob")
        assert 200 == (await bob.create(type="notebook")).status_code


async def test_a_private_image_takes_a_login_at_the_registry(platform: LocalPlatform) -> None:
    login: dict[str, Any] = {"x-skaha-registry-auth": base64.b64encode(b"ada:s3cret").decode()}
    async with asking(platform, platform.token) as asker:
        assert 400 == (await asker.create(image=PRIVATE)).status_code
        assert platform.registry_login() is None
        asker.http.headers.update(login)
        assert 200 == (await asker.create(image=PRIVATE)).status_code
    assert ("ada", "s3cret") == platform.registry_login()


async def test_a_handshake_that_fails_is_not_logged_but_those_of_others_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logger = logging.getLogger("anyio.streams.tls")
    async with LocalPlatform(tls=True) as platform, LocalPlatform(tls=True) as other:
        logger.error("theirs")
        certificate = platform.issue_certificate(expires_in=-60)
        assert "certificate expired" in await alert(platform, certificate)
        assert "unknown ca" in await alert(other, platform.issue_certificate())
    logger.error("theirs, later")
    assert ["theirs", "theirs, later"] == caplog.messages
    assert [] == logger.filters


async def test_the_block_is_left_while_clients_stay_connected() -> None:
    async with LocalPlatform(tls=True) as platform:
        silent, stream = await dial(platform), await dial(platform)
        context = platform.ssl_context()
        kept = await TLSStream.wrap(stream, hostname="localhost", ssl_context=context)
        await kept.send(b"GET /skaha/availability HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await kept.receive()
        ca = platform.ca_pem
    assert not ca.exists()
    await anyio.aclose_forcefully(kept)
    await silent.aclose()


async def test_certificates_are_of_a_platform_with_tls_that_is_entered() -> None:
    for platform in (LocalPlatform(), LocalPlatform(tls=True)):
        with pytest.raises(RuntimeError, match="tls=True"):
            _ = platform.ca_pem
        with pytest.raises(RuntimeError, match="tls=True"):
            platform.issue_certificate()
        assert platform.registry_login() is None


async def test_users_must_be_added_first(platform: LocalPlatform) -> None:
    with pytest.raises(ValueError, match="add_user"):
        platform.token_for("bob")
    with pytest.raises(ValueError, match="add_user"):
        platform.issue_certificate("bob")


async def test_nothing_secret_is_shown(platform: LocalPlatform) -> None:
    assert platform.token not in repr(platform)
    assert "PRIVATE KEY" not in repr(vars(platform))
