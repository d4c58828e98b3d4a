"""What the server makes of a create's parameters, losses included."""

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
from local.worlds import IMAGE

OFFER = Resources.from_settings(Settings(millicores=16_000, ram=192 * GIB))


def parameters(**fields: str) -> Parameters:
    return Parameters.from_pairs({"image": IMAGE, "name": "test", **fields}.items())


def no_limit() -> None:
    pass


def spec_of(**fields: str) -> Spec:
    return read_spec(parameters(**fields), OFFER, no_limit)


def refusal(**fields: str) -> HTTPError:
    with pytest.raises(HTTPError) as caught:
        spec_of(**fields)
    return caught.value


def test_names_of_parameters_are_in_any_case_and_the_first_value_wins() -> None:
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
def test_text_is_split_as_java_does(text: str, separator: str, parts: list[str]) -> None:
    assert parts == split_like_java(text, separator)


@given(st.text(st.sampled_from("ab="), max_size=9))
def test_a_split_has_lost_separators_at_the_end_and_nothing_else(text: str) -> None:
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
def test_a_dollar_is_a_reference_that_does_not_exist(text: str, status: int, message: str) -> None:
    with pytest.raises(HTTPError) as caught:
        expand_java_replacement(text)
    assert (status, message) == (caught.value.status, caught.value.text)


def test_a_backslash_is_eaten_and_keeps_what_follows() -> None:
    assert "a$b\\c" == expand_java_replacement(r"\a\$b\\c")


@pytest.mark.parametrize(("text", "result"), [(r"a\x20b", "a b"), (r"\u0041\t\\", "A\t\\")])
def test_yaml_escapes_are_read(text: str, result: str) -> None:
    assert result == unquote_yaml(text)


@pytest.mark.parametrize("text", ['a"b', "a\nb", r"\q"])
def test_what_breaks_the_yaml_is_not_created(text: str) -> None:
    with pytest.raises(NotCreated):
        unquote_yaml(text)


@given(st.text(st.characters(codec="utf-8", max_codepoint=0xFFFF), max_size=20))
def test_text_survives_as_doubly_escaped_characters(text: str) -> None:
    escaped = "".join(f"\\\\u{ord(character):04x}" for character in text)
    assert text == unquote_yaml(expand_java_replacement(escaped))


def test_cmd_is_one_word_and_args_are_split() -> None:
    words = read_command(parameters(cmd="python x.py", args="-c  1"))
    assert ("python x.py", "-c", "", "1") == words


def test_empty_args_are_one_empty_word() -> None:
    assert ("true", "") == read_command(parameters(cmd="true", args=""))
    assert () == read_command(parameters())


def test_env_pairs_that_do_not_split_in_two_are_dropped() -> None:
    pairs = ["A=1", "B=", "C=x=y", "D", "E=v=", "A=2"]
    assert (("A", "1"), ("E", "v"), ("A", "2")) == read_env(
        Parameters.from_pairs(("env", pair) for pair in pairs)
    )


def test_env_without_a_name_is_not_created() -> None:
    with pytest.raises(NotCreated):
        read_env(Parameters.from_pairs([("env", "=v")]))


def test_a_create_without_more_is_headless_and_flexible() -> None:
    spec = spec_of(name="Fits-1")
    assert (Kind.HEADLESS, "fits-1", False) == (spec.kind, spec.name, spec.fixed)
    assert (1000, 8000) == (spec.millicores, spec.max_millicores)
    assert (4 * GIB, 32 * GIB) == (spec.ram, spec.max_ram)


def test_given_resources_are_fixed() -> None:
    spec = spec_of(cores="1.5", ram="4")
    assert (1500, 1500) == (spec.millicores, spec.max_millicores)
    assert (4 * GIB, 4 * GIB, True) == (spec.ram, spec.max_ram, spec.fixed)


@pytest.mark.parametrize("value", ["0.5", "17", "-1", "x", "nan", "inf", "1e400"])
def test_cores_must_be_among_the_options(value: str) -> None:
    assert f"Invalid value for 'cores': {value}" == refusal(cores=value).text


@pytest.mark.parametrize("value", ["3", "0", "193"])
def test_ram_must_be_among_the_options(value: str) -> None:
    assert f"Invalid value for 'ram': {value}" == refusal(ram=value).text


@pytest.mark.parametrize("value", ["0", "29", "-1", "1.0", "x", ""])
def test_gpus_must_be_among_the_options(value: str) -> None:
    assert f"Invalid value for 'gpus': {value}" == refusal(gpus=value).text
    assert 2 == spec_of(gpus="2").gpus


@pytest.mark.parametrize(("kind", "fixed"), [("desktop", False), ("firefly", True)])
def test_desktop_and_firefly_ignore_what_is_asked(kind: str, fixed: bool) -> None:
    spec = spec_of(type=kind, cores="8", ram="64")
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
def test_bad_parameters_are_refused_with_the_servers_words(
    fields: dict[str, str], text: str
) -> None:
    refused = refusal(**fields)
    assert (400, text) == (refused.status, refused.text)


def test_parameters_are_looked_at_in_the_servers_order() -> None:
    bad = {"image": "x", "type": "x", "cores": "x", "name": "_", "gpus": "x", "cmd": "$x"}
    mended = {"image": IMAGE, "type": "headless", "cores": "1", "name": "a", "gpus": "1"}
    said = []
    for name, value in mended.items():
        said.append(refusal(**bad).text)
        bad[name] = value
    assert "session image" == said[0][:13]
    assert ["Invalid session type: x", "Invalid value for 'cores': x"] == said[1:3]
    assert ["name can only", "Invalid value"] == [text[:13] for text in said[3:]]
    assert "Illegal group reference" == refusal(**bad).text


def test_the_limit_is_looked_at_between_name_and_gpus_and_for_interactive_kinds_only() -> None:
    def limit() -> None:
        raise HTTPError(400, "limit")

    with pytest.raises(HTTPError, match="limit"):
        read_spec(parameters(type="notebook", gpus="0"), OFFER, limit)
    with pytest.raises(HTTPError, match="name"):
        read_spec(parameters(type="notebook", name="_"), OFFER, limit)
    assert Kind.HEADLESS is read_spec(parameters(), OFFER, limit).kind


@pytest.mark.parametrize("name", ["a-", "a" * 64])
def test_a_name_that_kubernetes_does_not_take_is_not_created(name: str) -> None:
    with pytest.raises(NotCreated):
        spec_of(name=name)
    assert "a" * 63 == spec_of(name="a" * 63).name


def test_a_desktop_app_cannot_be_created_as_a_session() -> None:
    assert 500 == refusal(type="desktop-app").status


def test_interactive_kinds_ignore_commands_and_environments() -> None:
    spec = spec_of(type="notebook", cmd="$x", args="$x", env="A=1")
    assert ((), ()) == (spec.command, spec.env)


def test_an_apps_registry_is_not_checked() -> None:
    spec = read_app_spec(parameters(image="elsewhere.org/Tools/DS9_x:8"), OFFER)
    assert (Kind.DESKTOP_APP, "ds9-x") == (spec.kind, spec.name)
    with pytest.raises(HTTPError, match="Missing parameter 'image'"):
        read_app_spec(parameters(image=""), OFFER)


def encoded(login: str) -> str:
    return base64.b64encode(login.encode()).decode()


def test_a_registry_login_is_split_as_java_splits() -> None:
    assert ("user", "secret") == read_registry_login(encoded("user:secret"))
    assert ("user", "secret") == read_registry_login(encoded("user:secret:"))
    assert ("", "secret") == read_registry_login(encoded(":secret"))


@pytest.mark.parametrize("secret", ["no colon", "a:b:c", "a:", ":", "", "a::b"])
def test_a_registry_login_has_exactly_two_parts(secret: str) -> None:
    with pytest.raises(HTTPError, match="Must be in form of username:secret"):
        read_registry_login(encoded(secret))


@pytest.mark.parametrize("header", ["?", "a", "gIA="])
def test_a_registry_login_is_base64_of_text(header: str) -> None:
    with pytest.raises(HTTPError, match="Must be in form of username:secret"):
        read_registry_login(header)


def test_a_small_platform_offers_what_it_has() -> None:
    offer = Resources.from_settings(Settings(millicores=2500, ram=3 * GIB))
    assert ((1, 2), (1, 2)) == (offer.core_options, offer.ram_options)
    assert (1, 2, 2, 2) == (
        offer.default_cores,
        offer.max_default_cores,
        offer.default_ram,
        offer.max_default_ram,
    )
