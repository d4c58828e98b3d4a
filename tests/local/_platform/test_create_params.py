"""Parsing of a create request's parameters, with the server's alterations."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaleden.local import Kind, Settings
from kaleden.local._platform._catalogue import Resources
from kaleden.local._platform._create_params import (
    NotCreated,
    Parameters,
    expand_java_replacement,
    read_app_spec,
    read_command,
    read_env,
    read_registry_login,
    read_spec,
    split_like_java,
    unquote_yaml,
)
from kaleden.local._platform._model import GIB, HTTPError, Spec
from support import FULL_IMAGE

OFFER = Resources.from_settings(Settings(millicores=16_000, ram=192 * GIB))


def make_parameters(**fields: str) -> Parameters:
    return Parameters.from_pairs({"image": FULL_IMAGE, "name": "test", **fields}.items())


def accept_any_number() -> None:
    pass


def make_spec(**fields: str) -> Spec:
    return read_spec(make_parameters(**fields), OFFER, accept_any_number)


def get_error(**fields: str) -> HTTPError:
    with pytest.raises(HTTPError) as caught:
        make_spec(**fields)
    return caught.value


def test_parameter_names_ignore_case_and_first_value_wins() -> None:
    read = Parameters.from_pairs([("NAME", "a"), ("name", "b"), ("Env", "A=1"), ("env", "B=2")])
    assert "a" == read.get("name")
    assert ["A=1", "B=2"] == read.get_all("env")
    assert (None, []) == (read.get("image"), read.get_all("image"))


@pytest.mark.parametrize(
    ("text", "separator", "parts"),
    [
        ("a b", " ", ["a", "b"]),
        ("a  b", " ", ["a", "", "b"]),
        ("a b  ", " ", ["a", "b"]),
        (" a", " ", ["", "a"]),
        ("", " ", [""]),
        ("  ", " ", []),
        ("K=V", "=", ["K", "V"]),
        ("K=", "=", ["K"]),
        ("K=V=", "=", ["K", "V"]),
        ("=", "=", []),
        ("=V", "=", ["", "V"]),
    ],
)
def test_text_is_split_like_java(text: str, separator: str, parts: list[str]) -> None:
    assert parts == split_like_java(text, separator)


@given(st.text(st.sampled_from("ab="), max_size=9))
def test_split_loses_only_trailing_separators(text: str) -> None:
    parts = split_like_java(text, "=")
    assert text.rstrip("=") == "=".join(parts).rstrip("=")
    assert parts == [text] or not parts or parts[-1]


@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        ("$x", 400, "Illegal group reference"),
        ("${name}", 400, "Illegal group reference"),
        ("cost$", 400, "Illegal group reference: group index is missing"),
        ("a\\", 400, "character to be escaped is missing"),
        ("$1", 500, "unexpected exception: java.lang.IndexOutOfBoundsException: No group 1"),
    ],
)
def test_dollar_is_illegal_group_reference(text: str, status: int, message: str) -> None:
    with pytest.raises(HTTPError) as caught:
        expand_java_replacement(text)
    assert (status, message) == (caught.value.status, caught.value.text)


def test_backslash_is_dropped_and_next_character_kept() -> None:
    assert "a$b\\c" == expand_java_replacement(r"\a\$b\\c")


@pytest.mark.parametrize(("text", "result"), [(r"a\x20b", "a b"), (r"\u0041\t\\", "A\t\\")])
def test_yaml_escapes_are_decoded(text: str, result: str) -> None:
    assert result == unquote_yaml(text)


@pytest.mark.parametrize("text", ['a"b', "a\nb", r"\q"])
def test_invalid_yaml_is_not_created(text: str) -> None:
    with pytest.raises(NotCreated):
        unquote_yaml(text)


@given(st.text(st.characters(codec="utf-8", max_codepoint=0xFFFF), max_size=20))
def test_text_survives_as_doubly_escaped_characters(text: str) -> None:
    escaped = "".join(f"\\\\u{ord(character):04x}" for character in text)
    assert text == unquote_yaml(expand_java_replacement(escaped))


def test_cmd_is_one_argument_and_args_are_split() -> None:
    arguments = read_command(make_parameters(cmd="python x.py", args="-c  1"))
    assert ("python x.py", "-c", "", "1") == arguments


def test_empty_args_are_one_empty_argument() -> None:
    assert ("true", "") == read_command(make_parameters(cmd="true", args=""))
    assert () == read_command(make_parameters())


def test_env_pair_without_exactly_two_parts_is_dropped() -> None:
    pairs = ["A=1", "B=", "C=x=y", "D", "E=v=", "A=2"]
    assert (("A", "1"), ("E", "v"), ("A", "2")) == read_env(
        Parameters.from_pairs(("env", pair) for pair in pairs)
    )


def test_env_without_name_is_not_created() -> None:
    with pytest.raises(NotCreated):
        read_env(Parameters.from_pairs([("env", "=v")]))


def test_create_is_headless_and_flexible_by_default() -> None:
    spec = make_spec(name="Fits-1")
    assert (Kind.HEADLESS, "fits-1", False) == (spec.kind, spec.name, spec.fixed)
    assert (1000, 8000) == (spec.millicores, spec.max_millicores)
    assert (4 * GIB, 32 * GIB) == (spec.ram, spec.max_ram)


def test_given_resources_are_fixed() -> None:
    spec = make_spec(cores="1.5", ram="4")
    assert (1500, 1500) == (spec.millicores, spec.max_millicores)
    assert (4 * GIB, 4 * GIB, True) == (spec.ram, spec.max_ram, spec.fixed)


@pytest.mark.parametrize("value", ["0.5", "17", "-1", "x", "nan", "inf", "1e400"])
def test_cores_must_be_among_options(value: str) -> None:
    assert f"Invalid value for 'cores': {value}" == get_error(cores=value).text


@pytest.mark.parametrize("value", ["3", "0", "193"])
def test_ram_must_be_among_options(value: str) -> None:
    assert f"Invalid value for 'ram': {value}" == get_error(ram=value).text


@pytest.mark.parametrize("value", ["0", "29", "-1", "1.0", "x", ""])
def test_gpus_must_be_among_options(value: str) -> None:
    assert f"Invalid value for 'gpus': {value}" == get_error(gpus=value).text
    assert 2 == make_spec(gpus="2").gpus


@pytest.mark.parametrize(("kind", "fixed"), [("desktop", False), ("firefly", True)])
def test_desktop_and_firefly_ignore_requested_resources(kind: str, fixed: bool) -> None:
    spec = make_spec(type=kind, cores="8", ram="64")
    assert (1000, 4 * GIB, fixed) == (spec.max_millicores, spec.max_ram, spec.fixed)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"image": ""}, "Missing parameter 'image'"),
        (
            {"image": "docker.io/x/y:z"},
            "session image 'docker.io/x/y:z' must come from one of [images.canfar.net]",
        ),
        ({"type": "x"}, "Invalid session type: x"),
        ({"name": ""}, "Missing parameter 'name'"),
        ({"name": "a_b"}, "name can only contain alpha-numeric chars and '-'"),
        ({"name": "-a"}, "Invalid label value: -a"),
    ],
)
def test_invalid_parameters_are_rejected_with_server_text(
    fields: dict[str, str], text: str
) -> None:
    error = get_error(**fields)
    assert (400, text) == (error.status, error.text)


def test_parameters_are_checked_in_server_order() -> None:
    bad = {"image": "x", "type": "x", "cores": "x", "name": "_", "gpus": "x", "cmd": "$x"}
    corrected = {"image": FULL_IMAGE, "type": "headless", "cores": "1", "name": "a", "gpus": "1"}
    texts = []
    for name, value in corrected.items():
        texts.append(get_error(**bad).text)
        bad[name] = value
    assert "session image" == texts[0][:13]
    assert ["Invalid session type: x", "Invalid value for 'cores': x"] == texts[1:3]
    assert ["name can only", "Invalid value"] == [text[:13] for text in texts[3:]]
    assert "Illegal group reference" == get_error(**bad).text


def test_limit_is_checked_between_name_and_gpus_for_interactive_kinds_only() -> None:
    def refuse() -> None:
        raise HTTPError(400, "limit")

    with pytest.raises(HTTPError, match="limit"):
        read_spec(make_parameters(type="notebook", gpus="0"), OFFER, refuse)
    with pytest.raises(HTTPError, match="name"):
        read_spec(make_parameters(type="notebook", name="_"), OFFER, refuse)
    assert Kind.HEADLESS is read_spec(make_parameters(), OFFER, refuse).kind


@pytest.mark.parametrize("name", ["a-", "a" * 64])
def test_name_rejected_by_kubernetes_is_not_created(name: str) -> None:
    with pytest.raises(NotCreated):
        make_spec(name=name)
    assert "a" * 63 == make_spec(name="a" * 63).name


def test_desktop_app_cannot_be_created_as_session() -> None:
    assert 500 == get_error(type="desktop-app").status


def test_interactive_kinds_ignore_command_and_environment() -> None:
    spec = make_spec(type="notebook", cmd="$x", args="$x", env="A=1")
    assert ((), ()) == (spec.command, spec.env)


def test_registry_of_desktop_app_is_not_checked() -> None:
    spec = read_app_spec(make_parameters(image="elsewhere.org/Tools/DS9_x:8"), OFFER)
    assert (Kind.DESKTOP_APP, "ds9-x") == (spec.kind, spec.name)
    with pytest.raises(HTTPError, match="Missing parameter 'image'"):
        read_app_spec(make_parameters(image=""), OFFER)


def encode_login(login: str) -> str:
    return base64.b64encode(login.encode()).decode()


def test_registry_login_is_split_like_java() -> None:
    assert ("user", "secret") == read_registry_login(encode_login("user:secret"))
    assert ("user", "secret") == read_registry_login(encode_login("user:secret:"))
    assert ("", "secret") == read_registry_login(encode_login(":secret"))


@pytest.mark.parametrize("secret", ["no colon", "a:b:c", "a:", ":", "", "a::b"])
def test_registry_login_needs_exactly_two_parts(secret: str) -> None:
    with pytest.raises(HTTPError, match="Must be in form of username:secret"):
        read_registry_login(encode_login(secret))


@pytest.mark.parametrize("header", ["?", "a", "gIA="])
def test_registry_login_must_be_base64_text(header: str) -> None:
    with pytest.raises(HTTPError, match="Must be in form of username:secret"):
        read_registry_login(header)


def test_small_platform_offers_only_its_capacity() -> None:
    offer = Resources.from_settings(Settings(millicores=2500, ram=3 * GIB))
    assert ((1, 2), (1, 2)) == (offer.core_options, offer.ram_options)
    assert (1, 2, 2, 2) == (
        offer.default_cores,
        offer.max_default_cores,
        offer.default_ram,
        offer.max_default_ram,
    )
