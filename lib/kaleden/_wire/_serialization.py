"""Conversion of the models to plain JSON data, and back without loss.

It serves saved results, ledgers and caches. The server's responses have another format, which
`_decoders` reads. Note that a saved `SessionSpec` contains the values of its ``env``.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from attrs import resolve_types

from kaleden._wire._enums import OpenEnum
from kaleden._wire._models import (
    Availability,
    Choices,
    CoreStats,
    Event,
    GpuStats,
    Image,
    InstanceStats,
    Listing,
    PlatformStats,
    RamStats,
    ResourceOptions,
    SessionInfo,
)
from kaleden._wire._spec import Launch, SessionSpec

if TYPE_CHECKING:
    from cattrs.preconf.json import JsonConverter

MODELS: tuple[type, ...] = (
    Availability,
    Choices,
    ResourceOptions,
    CoreStats,
    Event,
    GpuStats,
    Image,
    InstanceStats,
    Launch,
    Listing,
    RamStats,
    SessionInfo,
    SessionSpec,
    PlatformStats,
)
"""The classes that the converter supports."""


@cache
def get_converter() -> JsonConverter:
    """Return the shared converter, which generates its hooks at first use and caches them."""
    return build_converter()


def build_converter() -> JsonConverter:
    """Build a separate converter, to which the caller may add hooks.

    cattrs is imported here, because that takes a tenth of the time of ``import kaleden`` and few
    programs save anything.
    """
    from cattrs.preconf.json import make_converter  # noqa: PLC0415

    # Annotations are strings. They are resolved now, because attrs looks them up in the module that
    # `__module__` names, and `publish` changes that.
    for model in MODELS:
        resolve_types(model)

    converter = make_converter(detailed_validation=False)
    # Plain strings, not enumeration members: some serializers check the exact type.
    converter.register_unstructure_hook(OpenEnum, lambda member: member.value)
    _register_session_info(converter)
    return converter


def _register_session_info(converter: JsonConverter) -> None:
    """Save `SessionInfo.raw` as a plain object, also if it is stored as bytes."""
    from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override  # noqa: PLC0415

    raw = override(rename="raw", struct_hook=lambda value, _: dict(value))
    converter.register_structure_hook(
        SessionInfo, make_dict_structure_fn(SessionInfo, converter, _raw=raw)
    )
    plain = make_dict_unstructure_fn(SessionInfo, converter, _raw=override(omit=True))
    converter.register_unstructure_hook(SessionInfo, lambda info: {**plain(info), "raw": info.raw})
