"""Saved logins: every shape of the file, and every way it can be broken."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kaleden
from _auth.certificates import Authority
from _auth.saved import CANFAR, OTHER, active, contexts, document, save
from kaleden import ConfigurationError, ConnectionInfo
from kaleden._auth._canfar_config import read_saved

URL = "https://host.example/skaha"
PLACE = "~/.canfar/config.yaml"


@pytest.fixture(autouse=True)
def certificate(authority: Authority, home: Path) -> Path:
    return authority.issue().write(home / ".ssl" / "cadcproxy.pem")


def found(**arguments: Any) -> ConnectionInfo:
    return kaleden.AsyncSession(**arguments).describe()


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("folder", [".canfar", ".skaha"])
def test_all_versions_and_paths_are_read(home: Path, version: int, folder: str) -> None:
    save(home, document(version=version), folder)
    login = found()
    assert (f"{CANFAR}/v1", "X.509 certificate") == (login.url, login.credential)
    assert f"server 'canfar' in ~/{folder}/config.yaml" == login.url_from


def test_newer_path_is_read_first(home: Path) -> None:
    save(home, active("other", "srcnet"), ".canfar")
    save(home, document(), ".skaha")
    assert f"{OTHER}/v0" == found().url


def test_yaml_as_it_is_written(home: Path) -> None:
    save(home, yaml.safe_dump(active("other", "srcnet")))
    assert "bearer token" == found().credential


@pytest.mark.parametrize(
    ("name", "url", "kind"),
    [
        ("default", f"{CANFAR}/v1", "X.509 certificate"),
        ("sweden", f"{OTHER}/v0", "bearer token"),
    ],
)
def test_contexts_before_version_1_are_read(home: Path, name: str, url: str, kind: str) -> None:
    save(home, contexts(name))
    login = found()
    assert (url, kind) == (login.url, login.credential)
    assert f"login {name!r} in {PLACE}" == login.credential_from
    assert url == found(server=name).url


def test_server_can_be_chosen_by_name(home: Path) -> None:
    save(home, document())
    login = found(server="other")
    assert (f"{OTHER}/v0", "bearer token") == (login.url, login.credential)
    assert login.expires is not None
    with pytest.raises(ConfigurationError, match="it has canfar, other"):
        found(server="nowhere")


def test_name_without_anything_saved() -> None:
    with pytest.raises(ConfigurationError, match="none is saved"):
        found(server="canfar")


def test_certificate_elsewhere(home: Path, authority: Authority) -> None:
    config = document()
    config["authentication"]["cadc"]["path"] = str(home / "elsewhere.pem")
    save(home, config)
    with pytest.raises(ConfigurationError, match=r"elsewhere.pem does not exist"):
        found()
    authority.issue(expires=60).write(home / "elsewhere.pem")
    expires = found().expires
    assert expires is not None
    assert expires.timestamp() < time.time() + 61


def test_no_active_server_leaves_it_to_the_certificate(home: Path) -> None:
    save(home, document(active={"authentication": "cadc", "server": None}))
    login = found()
    assert "~/.ssl/cadcproxy.pem" in login.url_from
    assert f"- {PLACE}: no server is active there" in str(login)


def test_expired_token_says_to_log_in_again(home: Path) -> None:
    config = active("other", "srcnet")
    config["authentication"]["srcnet"]["expiry"]["access"] = time.time() - 60
    save(home, config)
    with pytest.raises(ConfigurationError, match=r"expired at 20.*`canfar login`"):
        found()
    login = found(url=OTHER)
    assert "none" == login.credential
    assert "expired at 20" in str(login)


@pytest.mark.parametrize("expiry", [0, None, "soon", float("nan"), 1e300, True, -5])
def test_unknown_expiry_is_none(home: Path, expiry: object) -> None:
    config = active("other", "srcnet")
    config["authentication"]["srcnet"]["expiry"] = {"access": expiry}
    save(home, yaml.safe_dump(config))
    assert found().expires is None


def broken(change: Callable[[dict[str, Any]], object]) -> str:
    config = active("other", "srcnet")
    change(config)
    return str(yaml.safe_dump(config))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("version: 2\nactive: {authentication: cadc, ser", "no YAML, or only half of it"),
        ("\x00\x01", "no YAML"),
        ("{{{}}}", "no YAML"),
        ("a: *nowhere", "no YAML"),
        ("!!python/object/apply:os.system ['true']", "no YAML"),
        ("[" * 5000, "no YAML"),
        ("", "has no `version:`"),
        ("just a text", "is no configuration of canfar"),
        ("- a\n- list", "is no configuration of canfar"),
        (
            broken(lambda file: file.update(version=3)),
            "of version 3, and kaleden knows 1 and 2",
        ),
        (broken(lambda file: file.update(version="2")), "of version '2'"),
        (broken(lambda file: file.update(version=[])), "of version"),
        (broken(lambda file: file.pop("version")), "has no `version:`"),
        (broken(lambda file: file.update(active="cadc")), "active is no mapping"),
        (broken(lambda file: file.update(servers=[1])), "servers is no mapping"),
        (broken(lambda file: file.update(servers=None)), "no server 'other'"),
        (broken(lambda file: file["servers"].update(other=5)), "servers.other is no mapping"),
        (broken(lambda file: file["servers"]["other"].pop("url")), "has no url"),
        (broken(lambda file: file["servers"]["other"].update(url="host")), "no server's URL"),
        (broken(lambda file: file["servers"]["other"].update(version="x")), "'v' and a number"),
        (
            broken(lambda file: file.update(authentication={})),
            "has no login for server 'other'",
        ),
        (broken(lambda file: file["authentication"]["srcnet"].pop("mode")), "of a kind"),
        (broken(lambda config: config["authentication"]["srcnet"].pop("token")), "has no token"),
        (broken(lambda config: config["authentication"]["srcnet"].update(token="x")), "no mapping"),
        (broken(lambda config: config.update(authentication={"srcnet": "x"})), "no mapping"),
    ],
    ids=lambda value: value[:40],
)
def test_broken_files_are_errors_if_needed_and_skipped_otherwise(
    home: Path, content: str, expected: str
) -> None:
    save(home, content)
    with pytest.raises(ConfigurationError) as caught:
        found()
    assert expected in str(caught.value)
    assert "access-token" not in str(caught.value)
    login = found(url=URL)
    assert ("none", 1) == (login.credential, str(login).count(".canfar/config.yaml"))
    assert "bearer token" == found(url=URL, token="token").credential


def test_file_that_cannot_be_read(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / ".canfar" / "config.yaml").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match=r"config.yaml cannot be read: Is a directory"):
        found()
    assert "cannot be read" in str(found(url=URL))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_pipe_is_not_waited_for(home: Path) -> None:
    (home / ".canfar").mkdir()
    os.mkfifo(home / ".canfar" / "config.yaml")
    with pytest.raises(ConfigurationError, match=r"config.yaml is no file"):
        found()
    assert "is no file" in str(found(url=URL))


def test_unreadable_folder_is_reported(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = Path.stat

    def closed(self: Path, **options: Any) -> os.stat_result:
        if self.name == "config.yaml":
            raise PermissionError(13, "Permission denied")
        return stat(self, **options)

    monkeypatch.setattr(Path, "stat", closed)
    with pytest.raises(ConfigurationError, match=r"config.yaml cannot be read: Permission denied"):
        found()
    assert home.is_dir()
    assert "cannot be read" in str(found(url=URL))


def test_unknown_home_is_reported(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = document()
    config["authentication"]["cadc"]["path"] = "~nobody-of-this-name/proxy.pem"
    save(home, config)
    with pytest.raises(ConfigurationError, match="write it out"):
        found()
    monkeypatch.setenv("CANFAR_CERTIFICATE", "~nobody-of-this-name/proxy.pem")
    with pytest.raises(ConfigurationError, match=r"CANFAR_CERTIFICATE: .* write it out"):
        found(url=URL)


# Each holds the previous one twice, so that the last one is endless.
BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))
MODE = f"""
version: 2
active: {{server: s, authentication: i}}
servers: {{s: {{url: '{URL}'}}}}
authentication: {{i: {{mode: *a59}}}}
"""


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (f"{BOMB}version: *a59", "is of version"),
        (f"{BOMB}{MODE}", "of a kind"),
        ("version: !!bool maybe", "is no YAML"),
        ("version: !!int ''", "is no YAML"),
        ("version: !!timestamp never", "is no YAML"),
        ("version: 2\nx: " + "y" * 2**16, "has more than 65536 bytes"),
    ],
    ids=["version", "mode", "bool", "int", "timestamp", "size"],
)
def test_endless_values_are_reported_briefly(home: Path, content: str, expected: str) -> None:
    save(home, content)
    with pytest.raises(ConfigurationError) as caught:
        found()
    assert expected in str(caught.value)
    assert 400 > len(str(caught.value))


def test_broken_context_affects_no_other(home: Path) -> None:
    config = contexts("sweden")
    config["contexts"].update(broken=5, empty={"server": 5})
    save(home, config)
    assert f"{OTHER}/v0" == found().url
    with pytest.raises(ConfigurationError, match=r"servers.broken is no mapping"):
        found(server="broken")


def test_broken_registry_affects_no_login(home: Path) -> None:
    save(home, document(registry=[1]))
    login = found()
    assert ("X.509 certificate", None) == (login.credential, login.registry_user)
    assert "registry is no mapping" in str(login)


def test_broken_server_affects_no_other(home: Path) -> None:
    config = document()
    config["servers"]["other"] = {"url": "nonsense"}
    save(home, config)
    assert f"{CANFAR}/v1" == found().url
    assert "X.509 certificate" == found(url=CANFAR).credential


@pytest.mark.parametrize("secret", ["a:b", "", None, 5])
def test_unusable_saved_registry_is_skipped(home: Path, secret: object) -> None:
    save(home, document(registry={"username": "ada", "secret": secret}))
    login = found()
    assert login.registry_user is None
    assert "a:b" not in str(login)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_any_content_is_read_or_refused(home: Path, data: st.DataObject) -> None:
    config = data.draw(st.sampled_from([document(), active("other", "srcnet"), contexts("sweden")]))
    spot = config
    while True:
        key = data.draw(st.sampled_from(sorted(spot)))
        if not isinstance(spot[key], dict) or not spot[key] or data.draw(st.booleans()):
            break
        spot = spot[key]
    spot[key] = data.draw(VALUES)
    path = save(home, yaml.safe_dump(config))
    try:
        saved = read_saved(path, home)
        for name in saved.names:
            saved.identity(saved.server(name))
        saved.registry()
    except ConfigurationError:
        pass  # That is the other good end.
