"""Specs: values that the server would refuse, drop or change are refused on construction."""

from __future__ import annotations

import math
import re
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from _wire.strategies import specs
from kaleden._errors import InvalidRequest
from kaleden._wire import (
    Launch,
    SessionKind,
    SessionSpec,
    SessionStatus,
    check_kind,
    check_status,
)
from kaleden._wire._validation import MAX_REPLICAS
from support import IMAGE


def make_spec(**arguments: Any) -> SessionSpec:
    return SessionSpec(**({"name": "fits", "image": IMAGE} | arguments))


def check_refused(message: str, **arguments: Any) -> None:
    with pytest.raises(InvalidRequest, match=f"^{re.escape(message)}"):
        make_spec(**arguments)


def test_spec_is_headless_and_flexible_by_default() -> None:
    spec = make_spec()

    assert SessionKind.HEADLESS is spec.kind
    assert (None, None, None) == (spec.cores, spec.ram, spec.gpus)
    assert (None, (), {}, 1) == (spec.cmd, spec.args, spec.env, spec.replicas)


def test_image_is_stored_in_full() -> None:
    assert "images.canfar.net/skaha/astroml:latest" == make_spec(image="skaha/astroml").image


def test_specs_are_compared_and_hashed_by_value() -> None:
    assert make_spec(args="a b") == make_spec(args=["a", "b"])
    assert 1 == len({make_spec(env={"A": "1"}), make_spec(env={"A": "1"})})


def test_spec_stores_a_copy_of_the_environment() -> None:
    env = {"A": "1"}
    spec = make_spec(env=env)
    env["A"] = "2"

    assert {"A": "1"} == spec.env


def test_repr_shows_variables_without_values() -> None:
    shown = repr(make_spec(env={"PASSWORD": "hunter2"}).launches())

    assert "env={'PASSWORD': '***'}" in shown
    assert "hunter2" not in shown


@pytest.mark.parametrize("kind", ["notebook", "Notebook", SessionKind.NOTEBOOK])
def test_kind_is_given_by_name_or_as_a_member(kind: str) -> None:
    assert SessionKind.NOTEBOOK is make_spec(kind=kind).kind


def test_unknown_kind_is_accepted_only_as_a_member() -> None:
    assert "vscode" == make_spec(kind=SessionKind("vscode")).kind
    check_refused(
        "kind 'vscode' is not known: use one of carta, contributed, desktop", kind="vscode"
    )


@pytest.mark.parametrize("kind", ["unknown", "", None, 5])
def test_invalid_kind_is_refused(kind: Any) -> None:
    check_refused(f"kind {kind!r} is not known", kind=kind)


def test_kinds_that_cannot_be_launched_are_refused() -> None:
    check_refused("kind 'desktop-app' is launched through its desktop", kind="desktop-app")
    check_refused("kind 'unknown' cannot be launched", kind=SessionKind.UNKNOWN)


def test_unknown_status_is_accepted_only_as_a_member() -> None:
    assert "Running" == check_status("running")
    assert "Hibernated" == check_status(SessionStatus("Hibernated"))


@pytest.mark.parametrize("wrong", ["Runing", "", None, 5, []])
def test_invalid_status_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"is not known: use one of Pending, Running"):
        check_status(wrong)


def test_check_kind_returns_a_member() -> None:
    assert SessionKind.CARTA is check_kind("carta")


@pytest.mark.parametrize("cores", [1, 1.5, 16.0])
def test_cores_may_be_fractional(cores: float) -> None:
    assert cores == make_spec(cores=cores).cores


@pytest.mark.parametrize("cores", [0, 0.5, -1, math.nan, math.inf, 10**9, "2", True])
def test_invalid_cores_are_refused(cores: Any) -> None:
    check_refused(f"cores must be a number from 1 to 1000000, not {cores!r}", cores=cores)


@pytest.mark.parametrize("amount", [0, -1, 1.5, 2.0, math.nan, 10**9, "2", True])
@pytest.mark.parametrize(
    ("name", "description"), [("ram", "a whole number of GiB"), ("gpus", "a whole number")]
)
def test_invalid_ram_and_gpus_are_refused(name: str, description: str, amount: Any) -> None:
    check_refused(
        f"{name} must be {description} from 1 to 1000000, not {amount!r}", **{name: amount}
    )


@pytest.mark.parametrize("replicas", [0, -1, MAX_REPLICAS + 1, 10**6, 1.5, "2", True, None])
def test_invalid_replicas_are_refused(replicas: Any) -> None:
    check_refused(
        f"replicas must be a whole number from 1 to 10000, not {replicas!r}", replicas=replicas
    )


@pytest.mark.parametrize("kind", ["desktop", "firefly"])
def test_desktop_and_firefly_refuse_replicas_and_resources(kind: str) -> None:
    check_refused(f"replicas must be 1 for {kind} sessions, not 2", kind=kind, replicas=2)
    check_refused(f"cores would be ignored by the server for kind '{kind}'", kind=kind, cores=2)
    check_refused(f"ram would be ignored by the server for kind '{kind}'", kind=kind, ram=4)


@pytest.mark.parametrize(
    "argument",
    [{"cmd": "python"}, {"args": ["x"]}, {"env": {"A": "1"}}],
    ids=["cmd", "args", "env"],
)
def test_only_headless_sessions_run_commands(argument: dict[str, Any]) -> None:
    check_refused(
        f"{next(iter(argument))} would be ignored by the server for kind 'notebook': "
        "leave it out, only headless sessions have it",
        kind="notebook",
        **argument,
    )


def test_name_is_refused_if_too_long_with_its_suffix() -> None:
    assert 9 == len(make_spec(name="x" * 61, replicas=9).launches())
    check_refused("name 'xxx", name="x" * 61, replicas=10)
    check_refused("name must be a string, not None", name=None)


@pytest.mark.parametrize("cmd", ["python", "/opt/run.sh", "it's"])
def test_command_is_one_word(cmd: str) -> None:
    assert cmd == make_spec(cmd=cmd).cmd


@pytest.mark.parametrize(
    ("cmd", "message"),
    [
        ("", "cmd must be a program's name, not ''"),
        (["python"], "cmd must be a program's name, not ['python']"),
        ("python reduce.py", "cmd 'python reduce.py' must be one word: put the rest into args"),
        ("python\t", "cmd 'python\\t' must be one word"),
        ("$HOME/run", "cmd has '$', which would not reach the container as it is"),
        ('"python"', "cmd has '\"', which"),
        ("C:\\run", "cmd has '\\\\', which"),
        ("pythön", "cmd has 'ö', which"),
        ("run\x00", "cmd has '\\x00', which"),
    ],
)
def test_command_that_the_server_would_change_is_refused(cmd: Any, message: str) -> None:
    check_refused(message, cmd=cmd)


@pytest.mark.parametrize(
    ("args", "kept"),
    [
        (None, ()),
        ([], ()),
        ("reduce.py", ("reduce.py",)),
        ("reduce.py -n 3", ("reduce.py", "-n", "3")),
        (["-c", "print('x')"], ("-c", "print('x')")),
        (iter(["a", "b"]), ("a", "b")),
    ],
)
def test_arguments_are_split_into_a_tuple(args: Any, kept: tuple[str, ...]) -> None:
    assert kept == make_spec(args=args).args


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("", "args is empty, and the server would make an argument of it: leave it out"),
        ("a  b", "args 'a  b' has a space too many"),
        (" a", "args ' a' has a space too many"),
        ("a ", "args 'a ' has a space too many"),
        ("-c 'a b'", "args \"-c 'a b'\" has a quote, and the server splits on spaces"),
        ('-c "a b"', "args has '\"', which would not reach the container as it is"),
        ("$HOME", "args has '$', which"),
        ("a\\b", "args has '\\\\', which"),
        ("a\nb", "args has '\\n', which"),
        ("a\tb", "args has '\\t', which"),
        ("é", "args has 'é', which"),
        (["a", ""], "args has an empty argument, which cannot be sent: leave it out"),
        (["a b"], "args has 'a b', and the server would split it at its spaces"),
        (["$x"], "args has '$', which"),
        ([1], "args must be strings, not 1: use str(...)"),
        (5, "args must be a string or a list of strings, not 5"),
    ],
)
def test_arguments_that_the_server_would_change_are_refused(args: Any, message: str) -> None:
    check_refused(message, args=args)


@pytest.mark.parametrize("value", ["1", "two words", "it's", "a,b;c#d{e}"])
def test_safe_variable_is_accepted(value: str) -> None:
    assert {"A_1": value} == make_spec(env={"A_1": value}).env


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"A": ""}, "env['A'] is empty, and the server would drop it: leave it out"),
        (
            {"A": "x=y"},
            "env['A'] has '=', and the server would drop it: send it as URL-safe base64",
        ),
        ({"A": "s$x"}, "env['A'] has '$', which would not reach the container as it is"),
        ({"A": 's"x'}, "env['A'] has '\"', which"),
        ({"A": "s\\x"}, "env['A'] has '\\\\', which"),
        ({"A": "s\nx"}, "env['A'] has '\\n', which"),
        ({"A": "sé"}, "env['A'] has 'é', which"),
        ({"A": 1}, "env['A'] must be a string, not int: use str(...)"),
        ({"1A": "x"}, "env name '1A' is not a variable name"),
        ({"A-B": "x"}, "env name 'A-B' is not a variable name"),
        ({"": "x"}, "env name '' is not a variable name"),
        ({5: "x"}, "env name 5 is not a variable name"),
        ("A=1", "env must be a mapping of names to values, not str"),
    ],
)
def test_variable_that_the_server_would_change_is_refused(env: Any, message: str) -> None:
    check_refused(message, env=env)


@pytest.mark.parametrize("value", ["hunter2=", "hunter2$", "hunter2\x00"])
def test_refused_variable_is_reported_without_its_value(value: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        make_spec(env={"PASSWORD": value})

    assert "hunter2" not in str(caught.value)


def test_missing_environment_is_empty() -> None:
    assert {} == make_spec(env=None).env


def test_single_replica_keeps_the_name() -> None:
    (launch,) = make_spec().launches()

    assert "fits" == launch.name
    assert {"REPLICA_ID": "1", "REPLICA_COUNT": "1"} == launch.env


def test_replicas_are_numbered_from_one() -> None:
    launches = make_spec(replicas=3, env={"A": "1"}).launches()

    assert ["fits-1", "fits-2", "fits-3"] == [launch.name for launch in launches]
    assert {"A": "1", "REPLICA_ID": "2", "REPLICA_COUNT": "3"} == launches[1].env


@pytest.mark.parametrize("name", ["REPLICA_ID", "REPLICA_COUNT"])
def test_replica_variables_cannot_be_set(name: str) -> None:
    with pytest.raises(InvalidRequest, match=f"env must not set {name}"):
        make_spec(env={name: "9"})


@given(specs)
def test_launches_match_the_replicas_and_have_distinct_names(spec: SessionSpec) -> None:
    launches = spec.launches()

    assert spec.replicas == len({launch.name for launch in launches})
    assert all(
        Launch(each.name, spec, n, spec.replicas) == each for n, each in enumerate(launches, 1)
    )
    assert all(len(launch.name) <= 63 for launch in launches)


@given(specs)
def test_spec_can_be_rebuilt_from_its_fields(spec: SessionSpec) -> None:
    assert spec == attrs.evolve(spec) == attrs.evolve(spec, name=spec.name)


@given(st.text(max_size=30))
def test_arguments_from_any_text_join_to_the_text(text: str) -> None:
    try:
        args = make_spec(args=text).args
    except InvalidRequest:
        return
    assert text == " ".join(args)
    assert all(args)
