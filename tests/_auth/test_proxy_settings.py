"""The proxy of a server: the argument, the environment, and its exceptions."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest
from anyio.abc import SocketStream

import kaleden
from _http.servers import reply
from kaleden import ConfigurationError
from kaleden._auth._endpoint import is_bypassed, parse_proxy
from support import raw_server, read_request


async def test_plain_http_server_is_asked_through_a_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[str] = []

    async def serve(stream: SocketStream) -> None:
        while True:
            seen.append((await read_request(stream)).decode())
            await stream.send(reply(b"[]"))

    async with raw_server(serve) as url:
        proxy = url.removesuffix("/skaha").replace("://", "://ada:pw@")
        async with kaleden.AsyncSession("http://host.example/skaha", proxy=proxy) as session:
            assert [] == await session.fetch()
            shown = session.describe().proxy
            assert url.removesuffix("/skaha") == shown
        monkeypatch.setenv("HTTP_PROXY", proxy)
        async with kaleden.AsyncSession("http://host.example/skaha") as session:
            assert [] == await session.fetch()
            assert shown == session.describe().proxy
    assert 2 == len(seen)
    for request in seen:
        assert request.startswith("GET http://host.example/skaha/v1/session HTTP/1.1\r\n")
        assert "proxy-authorization: basic" in request.lower()


@pytest.mark.parametrize(
    ("variables", "url", "proxy"),
    [
        ({"HTTPS_PROXY": "http://p:1"}, "https://host.example", "http://p:1"),
        ({"https_proxy": "p:1"}, "https://host.example", "http://p:1"),
        ({"HTTPS_PROXY": " http://p:1 "}, "https://host.example", "http://p:1"),
        ({"https_proxy": "http://p:1", "HTTPS_PROXY": "http://q:1"}, "https://h", "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1", "ALL_PROXY": "http://q:1"}, "https://h", "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1", "ALL_PROXY": "socks5://q:1"}, "https://h", "http://p:1"),
        ({"ALL_PROXY": "http://p:1"}, "https://host.example", "http://p:1"),
        ({"all_proxy": "http://p:1"}, "http://host.example", "http://p:1"),
        ({"HTTPS_PROXY": "", "ALL_PROXY": "http://p:1"}, "https://host.example", "http://p:1"),
        ({"HTTP_PROXY": "http://p:1"}, "https://host.example", None),
        ({"HTTP_PROXY": "http://p:1"}, "http://host.example", "http://p:1"),
        ({"HTTPS_PROXY": ""}, "https://host.example", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "example"}, "https://host.example", None),
        ({"HTTPS_PROXY": "http://p:1", "no_proxy": "example"}, "https://host.example", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, "https://host.example", None),
        ({"ALL_PROXY": "socks5://p:1", "NO_PROXY": "*"}, "https://host.example", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "fd00::1"}, "https://[fd00::1]", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "[fd00::1]"}, "https://[fd00::1]", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "h:8443"}, "https://h:8443", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "h:8443"}, "https://h", "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "h:443"}, "https://h", None),
        ({"HTTPS_PROXY": "http://p:1"}, "https://127.0.0.1:1", None),
        ({"HTTPS_PROXY": "http://p:1"}, "https://localhost", None),
    ],
)
def test_environment_names_a_proxy(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str, proxy: str | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert proxy == kaleden.AsyncSession(url).describe().proxy


@pytest.mark.parametrize(
    ("no_proxy", "host", "bypassed"),
    [
        ("", "host.example", False),
        (",, ,", "host.example", False),
        ("*", "10.0.0.1", True),
        ("a.org, *", "host.example", True),
        ("host.example", "host.example", True),
        ("HOST.example.", "host.EXAMPLE", True),
        ("host.example", "host.example.", True),
        ("example", "host.example", True),
        ("ample", "host.example", False),
        (".example", "host.example", True),
        (".host.example", "host.example", True),
        ("..host.example", "a.host.example", True),
        ("*.site.org", "a.site.org", True),
        ("*.site.org", "a.b.site.org", True),
        ("*.site.org", "site.org", False),
        ("*.site.org", "asite.org", False),
        ("*.site.org:443", "a.site.org", True),
        ("*.site.org:80", "a.site.org", False),
        ("other.org , host.example", "host.example", True),
        ("other.org host.example", "host.example", True),
        ("host.example:443", "host.example", True),
        ("host.example:444", "host.example", False),
        ("*:443", "host.example", True),
        ("host.example:", "host.example", False),
        ("10.128.0.5", "10.128.0.5", True),
        ("10.128.0.5", "10.128.0.50", False),
        ("0.5", "10.128.0.5", False),
        ("10.128.0.0/16", "10.128.77.5", True),
        ("10.128.0.0/16", "10.129.0.5", False),
        ("10.128.77.9/16", "10.128.0.1", True),
        ("10.128.0.0/255.255.0.0", "10.128.77.5", True),
        ("10.128.0.0/16:443", "10.128.77.5", True),
        ("10.128.0.0/16:444", "10.128.77.5", False),
        ("10.128.0.0/99", "10.128.77.5", False),
        ("10.128.0.0/16", "host.example", False),
        ("0.0.0.0/0", "10.1.2.3", True),
        ("0.0.0.0/0", "fd00::1", False),
        ("2001:db8::/32", "2001:db8:1::5", True),
        ("2001:db8:ffff::/32", "2001:db8:1::5", True),
        ("2001:db8::/32", "2001:db9::1", False),
        ("[2001:db8::]/32", "2001:db8::1", True),
        ("[2001:db8::/32]:443", "2001:db8::1", True),
        ("[2001:db8::1]:443", "2001:db8::1", True),
        ("[2001:db8::1]:444", "2001:db8::1", False),
        ("2001:DB8:0::1", "2001:db8::1", True),
        ("10.128.0.0/16", "::ffff:10.128.0.5", True),
        ("::ffff:10.128.0.0/112", "10.128.0.5", True),
        ("::ffff:10.128.0.5", "10.128.0.5", True),
        ("fe80::1%eth0", "fe80::1%25eth0", True),
        ("fe80::%eth0/10", "fe80::1", True),
        ("fe80::/10", "fe80::1%eth1", True),
        ("[not-an-address]", "host.example", False),
    ],
)
def test_no_proxy_names_servers(no_proxy: str, host: str, bypassed: bool) -> None:
    assert bypassed == is_bypassed(no_proxy, host, 443)


@pytest.mark.parametrize(
    ("url", "shown", "origin"),
    [
        ("http://p:3128", "http://p:3128", ("http", "p", 3128)),
        ("http://p", "http://p", ("http", "p", 80)),
        ("https://p", "https://p", ("https", "p", 443)),
        ("HTTP://P.Example:3128/", "http://P.Example:3128", ("http", "p.example", 3128)),
        ("http://p:3128/a/path", "http://p:3128", ("http", "p", 3128)),
        ("http://[::1]:3128", "http://[::1]:3128", ("http", "::1", 3128)),
        ("http://10.0.0.1", "http://10.0.0.1", ("http", "10.0.0.1", 80)),
        ("http://[fe80::1%25eth0]:1", "http://[fe80::1%25eth0]:1", ("http", "fe80::1%eth0", 1)),
    ],
)
def test_url_of_a_proxy_is_parsed(url: str, shown: str, origin: tuple[str, str, int]) -> None:
    proxy = parse_proxy(url, "proxy=")
    assert (shown, origin, False) == (proxy.url, proxy.origin, proxy.has_credentials)


@pytest.mark.parametrize(
    ("userinfo", "credentials"),
    [
        ("ada:pw", "ada:pw"),
        ("ada", "ada:"),
        (":pw", ":pw"),
        ("ada%40site:p%3Aw%2F%25", "ada@site:p:w/%"),
        ("ada:p@w", "ada:p@w"),
        ("ada:p:w", "ada:p:w"),
        ("SITE\\ada:p w", "SITE\\ada:p w"),
        ("%C3%A9:\u00e9", "\u00e9:\u00e9"),
    ],
)
def test_credentials_are_percent_decoded(userinfo: str, credentials: str) -> None:
    proxy = parse_proxy(f"http://{userinfo}@p:1", "proxy=")
    encoded = base64.b64encode(credentials.encode()).decode()
    assert f"Proxy-Authorization: Basic {encoded}\r\n" == proxy.headers
    assert "http://p:1" == proxy.url
    assert encoded not in repr(proxy)


def test_password_that_is_not_utf_8_is_sent_as_it_is() -> None:
    proxy = parse_proxy("http://ada:p\udce9@p:1", "the proxy of the environment (HTTPS_PROXY)")
    assert f"Proxy-Authorization: Basic {base64.b64encode(b'ada:p' + bytes([0xE9])).decode()}" in (
        proxy.headers
    )


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost.",
        "hub.localhost",
        "127.0.0.1",
        "127.1.2.3",
        "[::1]",
        "[::ffff:127.0.0.1]",
    ],
)
def test_server_on_this_machine_has_no_proxy_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://p:3128")
    assert kaleden.AsyncSession(f"https://{host}/skaha").describe().proxy is None
    assert kaleden.AsyncSession("https://local.host/skaha").describe().proxy == "http://p:3128"


def test_token_for_a_server_on_this_machine_is_not_sent_to_a_proxy_over_plain_http() -> None:
    url = "http://127.0.0.1:8080/skaha"
    with pytest.raises(ConfigurationError, match="or give no proxy="):
        kaleden.AsyncSession(url, token="t", proxy="http://p:3128")
    kaleden.AsyncSession(url, token="t")


@pytest.mark.parametrize(
    "proxy",
    [
        "http://ada:secret/34@host:1",
        "http://ada:secret#34@host:1",
        "http://ada:57?secret@host:1",
        "http://ada:secret@",
        "http://ada:secret@host:0",
        "http://ada:secret@host:99999",
        "http://ada:secret@ho st:1",
        "http://ada:secret@host\r\nx:1",
        "http://ada:secret@[::1:1",
        "http://ada:secret@a..b:1",
        "http://a%3Ada:secret@host:1",
        "http://ada:secret%0d%0a@host:1",
        "sockssecret:x@host:1",
        "ada:secret@host",
        "ftp://ada:secret@host",
        "",
        5,
    ],
)
@pytest.mark.parametrize("source", ["argument", "environment"])
def test_proxy_that_is_not_usable_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, proxy: Any, source: str
) -> None:
    if source == "environment":
        if proxy in {"", 5, "ada:secret@host", "sockssecret:x@host:1"}:
            pytest.skip("no proxy, or a usable one there")
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        proxy, match = None, r"the proxy of the environment \(HTTPS_PROXY\) has"
    else:
        match = "proxy= has"
    with pytest.raises(ConfigurationError, match=match) as caught:
        kaleden.AsyncSession("https://host.example", proxy=proxy)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("scheme", "written"),
    [("socks5", "socks5"), ("socks5h", "socks5h"), ("socks", "socks5"), ("socks4a", "socks5")],
)
def test_socks_proxy_is_refused_with_the_way_to_use_it(
    monkeypatch: pytest.MonkeyPatch, scheme: str, written: str
) -> None:
    url = f"{scheme}://ada:secret@p:1080"
    with pytest.raises(ConfigurationError, match=r"^proxy= names a SOCKS proxy") as given:
        kaleden.AsyncSession("https://host.example", proxy=url)
    monkeypatch.setenv("ALL_PROXY", url)
    with pytest.raises(ConfigurationError, match=r"environment \(ALL_PROXY\)") as found:
        kaleden.AsyncSession("https://host.example")
    for error in (str(given.value), str(found.value)):
        assert f'client=httpx.AsyncClient(proxy="{written}://HOST:PORT")' in error
        assert "httpx[socks]" in error
        assert "secret" not in error
        assert (scheme == written) == ("write socks5://" not in error)
    # A client of the caller has proxies of its own.
    kaleden.AsyncSession("https://host.example", client=httpx.AsyncClient(trust_env=False))
