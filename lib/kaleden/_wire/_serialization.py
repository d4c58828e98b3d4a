"""The one converter: every model of this package to plain JSON data, and back exactly.

For what is kept: saved results, ledgers, caches. What the server sends is another shape, and
`_readers` reads that. Keep in mind that a saved `SessionSpec` has the values of its ``env`` in it.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from attrs import resolve_types

from kaleden._wire._enums import OpenEnum
from kaleden._wire._models import (
    Availability,
    Capability,
    Choices,
    CoreStats,
    Event,
    GpuStats,
    Image,
    InstanceStats,
    Interface,
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
    Capability,
    Choices,
    ResourceOptions,
    CoreStats,
    Event,
    GpuStats,
    Image,
    InstanceStats,
    Interface,
    Launch,
    Listing,
    RamStats,
    SessionInfo,
    SessionSpec,
    PlatformStats,
)
"""What the converter is for."""


@cache
def get_converter() -> JsonConverter:
    """Return the shared converter. Its hooks are generated at first use and kept."""
    return build_converter()


def build_converter() -> JsonConverter:
    """Make a converter to which a caller may add hooks of its own.

    cattrs is imported here: that takes a tenth of the time of ``import kaleden``, and few programs
    save anything.
    """
    from cattrs.preconf.json import make_converter  # noqa: PLC0415

    # Annotations are strings, which attrs looks up in the module that a class names.
    for model in MODELS:
        resolve_types(model)

    made = make_converter(detailed_validation=False)
    # Plain strings, not members that are strings: some serializers check the exact type.
    made.register_unstructure_hook(OpenEnum, lambda member: member.value)
    _register_session_info(made)
    return made


def _register_session_info(made: JsonConverter) -> None:
    """Save `SessionInfo.raw` as a plain object, in whichever form it is kept."""
    from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override  # noqa: PLC0415

    raw = override(rename="raw", struct_hook=lambda value, _: dict(value))
    made.register_structure_hook(SessionInfo, make_dict_structure_fn(SessionInfo, made, _raw=raw))
    plain = make_dict_unstructure_fn(SessionInfo, made, _raw=override(omit=True))
    made.register_unstructure_hook(SessionInfo, lambda info: {**plain(info), "raw": info.raw})
