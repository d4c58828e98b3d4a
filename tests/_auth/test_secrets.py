"""No secret in anything that can be looked at: reprs, logs, errors, ledgers, JSON, HTML."""

from __future__ import annotations

import base64
import contextlib
import inspect
import logging
import traceback
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import pytest

pytest.importorskip("anycorn")

import kaleden
from _auth.certificates import Authority
from _auth.saved import active, save
from _http.servers import BearerAuth
from kaleden import ConfigurationError
from kaleden._auth._canfar_config import read_saved
from kaleden._auth._tokens import Token
from kaleden.local import LocalPlatform
from support import PLAIN_BACKENDS

TOKEN = "planted-token-7f3a"
SECRET = "planted-registry-secret-9c2d"
HEADER = base64.b64encode(f"ada:{SECRET}".encode()).decode()
REFRESH = "planted-refresh-token-1b8e"
PRIVATE = "images.canfar.net/private/lab:1"


@pytest.fixture(params=PLAIN_BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def platform(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[LocalPlatform]:
    async with LocalPlatform(tls=True, token=TOKEN, user="ada") as platform:
        monkeypatch.setenv("SSL_CERT_FILE", str(platform.ca_pem))
        yield platform


class Witness:
    """Collects all text that a user or a log could show."""

    def __init__(self, *secrets: str) -> None:
        self.secrets = (TOKEN, SECRET, HEADER, REFRESH, *secrets)
        self.seen: list[str] = []

    def see(self, *things: Any) -> None:
        for thing in things:
            self.seen += [repr(thing), str(thing)]
            for method in ("to_json", "_repr_html_"):
                if hasattr(thing, method):
                    self.seen.append(str(getattr(thing, method)()))

    def catch(self, error: BaseException) -> None:
        self.see(error, *error.args)
        formatted = traceback.TracebackException.from_exception(error)
        self.seen += list(formatted.format())

    def check(self, caplog: pytest.LogCaptureFixture) -> None:
        self.seen += [record.getMessage() for record in caplog.records]
        self.seen += [repr(record.args) for record in caplog.records]
        text = "\n".join(self.seen)
        assert len(text) > 1000
        for secret in self.secrets:
            assert secret not in text


def key_of(path: Path) -> str:
    """A line of the private key in a file."""
    _, _, key = path.read_text().partition("PRIVATE KEY-----\n")
    return key.splitlines()[1]


async def use(session: kaleden.AsyncSession, witness: Witness) -> None:
    """Launch, read, wait, fail and end, and look at all that comes of it."""
    witness.see(session, session.describe())
    async with session:
        witness.see(session, session.statistics())
        async with session.scope() as scope:
            created = await scope.create("lab", PRIVATE, cmd="sleep", args="1000")
            witness.see(scope, created, scope.statistics())
            infos = await session.info(created)
            witness.see(infos, *infos, await session.logs(created), await session.events(created))
        witness.see(await session.info("nosuchid"))
        for failure in (await session.info("nosuchid")).failures.values():
            witness.see(failure, failure.to_exception())
        with contextlib.suppress(kaleden.BatchError):
            try:
                (await session.renew("nosuchid")).raise_on_failure()
            except kaleden.BatchError as error:
                witness.catch(error)
                raise
        witness.see(await session.create("lab", "nowhere.example/x/y:1", cmd="true"))
        try:
            await session.fetch(kind="nonsense")
        except kaleden.InvalidRequest as error:
            witness.catch(error)
        internals = [vars(session), session._components, session._engine, session._engine.transport]
        for internal in internals:
            witness.see(internal)
        witness.see(*inspect.getmembers(session._components, lambda part: not callable(part)))


async def test_token_and_registry_secret_are_not_shown(
    platform: LocalPlatform, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    witness, ledger = Witness(), tmp_path / "ledger"
    registry = ("ada", SECRET)
    session = kaleden.AsyncSession(platform.url, TOKEN, registry=registry, ledger=ledger)
    await use(session, witness)
    assert registry == platform.registry_login()
    witness.see(ledger.read_text())
    witness.check(caplog)


async def test_token_of_an_httpx_auth_is_not_shown(
    platform: LocalPlatform, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    witness = Witness()
    auth = BearerAuth(TOKEN)
    await use(kaleden.AsyncSession(platform.url, auth=auth, registry=("ada", SECRET)), witness)
    assert any("httpx" in record.name for record in caplog.records)
    witness.check(caplog)


async def test_tokens_of_a_function(
    platform: LocalPlatform, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    witness = Witness()
    session = kaleden.AsyncSession(platform.url, lambda: TOKEN, registry=("ada", SECRET))
    await use(session, witness)
    platform.revoke(TOKEN)
    async with kaleden.AsyncSession(platform.url, lambda: TOKEN) as refused:
        witness.see(await refused.info("a"))
    witness.check(caplog)


async def test_key_of_a_certificate_is_not_shown(
    platform: LocalPlatform, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    path = platform.issue_certificate(path=tmp_path / "proxy.pem")
    witness = Witness(key_of(path))
    session = kaleden.AsyncSession(platform.url, certificate=path, registry=("ada", SECRET))
    await use(session, witness)
    async with kaleden.AsyncSession(platform.url, certificate=path) as other:
        path.write_text(path.read_text().replace("-----END CERT", "AAAA\n-----END CERT"))
        witness.see(await other.info("a"))
    try:
        kaleden.AsyncSession(platform.url, certificate=path)
    except ConfigurationError as error:
        witness.catch(error)
    witness.check(caplog)


async def test_saved_secrets_are_not_shown(
    platform: LocalPlatform, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    config = active("other", "srcnet")
    config["servers"]["other"]["url"] = platform.url
    config["authentication"]["srcnet"]["token"] = {"access": TOKEN, "refresh": REFRESH}
    config["registry"] = {"url": "https://images", "username": "ada", "secret": SECRET}
    path = save(home, config)
    witness = Witness()
    witness.see(saved := read_saved(path, home), saved.identity(saved.server("other")))
    await use(kaleden.AsyncSession(), witness)
    path.write_text(path.read_text()[:-20])
    try:
        kaleden.AsyncSession()
    except ConfigurationError as error:
        witness.catch(error)
    witness.check(caplog)


async def test_misplaced_secrets_are_not_shown(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    witness = Witness()
    witness.see("what follows is short, so here is some more text " * 30)
    for arguments in (
        {"url": f"https://ada:{TOKEN}@host/skaha"},
        {"url": f"ada:{TOKEN}@host"},
        {"url": f"https://host/skaha?token={TOKEN}"},
        {"url": f"https://host/skaha#{TOKEN}"},
        {"url": f"https://ada:{TOKEN}/@host"},
        {"url": "https://host", "token": f"{TOKEN}\n"},
        {"url": "http://host", "token": TOKEN},
        {"url": "https://host", "registry": ("ada", f"{SECRET}:")},
        {"url": "https://host", "proxy": f"ada:{SECRET}@host"},
        {"url": "https://host", "proxy": f"ftp://ada:{SECRET}@host"},
    ):
        with pytest.raises(ConfigurationError) as caught:
            kaleden.AsyncSession(**arguments)
        witness.catch(caught.value)
    witness.see(kaleden.AsyncSession("https://h", proxy=f"http://a:{SECRET}@p:1").describe())
    witness.see(Token(TOKEN))
    witness.check(caplog)


async def test_refused_token_is_not_shown(
    platform: LocalPlatform, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    witness = Witness()
    platform.revoke(TOKEN)
    async with kaleden.AsyncSession(platform.url, TOKEN) as session:
        witness.see(await session.info(["a", "b"]), await session.create("lab", PRIVATE))
        for call in (session.fetch, session.stats):
            try:
                await call()
            except kaleden.NotAuthenticated as error:
                witness.catch(error)
        with anyio.move_on_after(0):
            await session.fetch()
    witness.see("nothing of it is in here " * 50)
    witness.check(caplog)
