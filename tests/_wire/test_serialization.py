"""Conversion of every model to JSON and loaded."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import attrs
import pytest
from hypothesis import given

from _wire.samples import OLD, RUNNING, make_json_response
from _wire.strategies import models
from kaleden import _wire
from kaleden._wire import SessionInfo, SessionSpec, SessionStatus
from kaleden._wire._responses import parse_info
from kaleden._wire._serialization import MODELS, build_converter, get_converter


def round_trip(model: Any) -> Any:
    text = json.dumps(get_converter().unstructure(model))
    return get_converter().structure(json.loads(text), type(model))


def collect_types(value: Any) -> set[type]:
    if isinstance(value, dict):
        return {dict, *map(type, value), *(t for v in value.values() for t in collect_types(v))}
    if isinstance(value, list | tuple):
        return {type(value), *(t for each in value for t in collect_types(each))}
    return {type(value)}


@given(models)
def test_every_model_round_trips(model: Any) -> None:
    loaded = round_trip(model)

    assert model == loaded
    assert type(model) is type(loaded)
    assert getattr(model, "raw", None) == getattr(loaded, "raw", None)


@given(models)
def test_saved_data_has_only_plain_types(model: Any) -> None:
    plain = {dict, list, tuple, str, int, float, bool, type(None)}

    assert collect_types(get_converter().unstructure(model)) <= plain


@pytest.mark.parametrize("payload", [RUNNING, OLD])
def test_session_round_trips_with_types_and_raw_object(payload: dict[str, Any]) -> None:
    info = parse_info(make_json_response(payload))
    loaded = round_trip(info)

    assert info == loaded
    assert payload == loaded.raw
    assert isinstance(loaded.status, SessionStatus)
    assert isinstance(loaded.start_time, datetime)
    assert isinstance(loaded.groups, tuple)


def test_saved_spec_has_the_values_of_its_variables() -> None:
    spec = SessionSpec("fits", "skaha/astroml", env={"A": "secret"})

    assert {"A": "secret"} == get_converter().unstructure(spec)["env"]


def test_saved_spec_is_validated_when_loaded() -> None:
    saved = get_converter().unstructure(SessionSpec("fits", "skaha/astroml")) | {"name": "Fits"}

    with pytest.raises(ValueError, match="use 'fits'"):
        get_converter().structure(saved, SessionSpec)


def test_converter_ignores_the_module_of_a_class(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SessionInfo, "__module__", "kaleden")

    assert SessionInfo(id="x") == build_converter().structure({"id": "x"}, SessionInfo)


def test_hooks_of_another_converter_do_not_change_the_shared_one() -> None:
    other = build_converter()
    other.register_unstructure_hook(SessionStatus, lambda _: "mine")

    assert "mine" == other.unstructure(SessionStatus.RUNNING)
    assert "Running" == get_converter().unstructure(SessionStatus.RUNNING)


def test_converter_supports_every_model() -> None:
    not_saved = {_wire.Request, _wire.Response, _wire.ErrorResponse}
    public = {getattr(_wire, name) for name in _wire.__all__}
    classes = {each for each in public if isinstance(each, type) and attrs.has(each)}

    assert classes - not_saved == set(MODELS)
