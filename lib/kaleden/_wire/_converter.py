"""The one converter: every model of this package to plain JSON data, and back exactly.

For what is kept: saved results, ledgers, caches. What the server sends is another shape, and
`_readers` reads that. Keep in mind that a saved `SessionSpec` has the values of its ``env`` in it.
"""

from __future__ import annotations

from attrs import resolve_types
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override
from cattrs.preconf.json import JsonConverter, make_converter

from kaleden._wire._enums import OpenEnum
from kaleden._wire._models import (
    Availability,
    Capability,
    Choices,
    Context,
    CoreStats,
    Event,
    GpuStats,
    Image,
    InstanceStats,
    Interface,
    Listing,
    RamStats,
    SessionInfo,
    Stats,
)
from kaleden._wire._spec import Launch, SessionSpec

MODELS: tuple[type, ...] = (
    Availability,
    Capability,
    Choices,
    Context,
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
    Stats,
)
"""What the converter is for."""

# Annotations are strings, which attrs looks up in the module that a class says it is from. The
# package's façade renames that, so they are looked up here, while the class still tells the truth.
for _model in MODELS:
    resolve_types(_model)


def new_converter() -> JsonConverter:
    """Make a converter to which a caller may add hooks of their own."""
    made = make_converter(detailed_validation=False)
    # Plain strings, not members that are strings: some writers of data look at the exact type.
    made.register_unstructure_hook(OpenEnum, lambda member: member.value)
    _register_session_info(made)
    return made


def _register_session_info(made: JsonConverter) -> None:
    """Save `SessionInfo.raw` as the object that it shows, in whichever way that is kept."""
    raw = override(rename="raw", struct_hook=lambda value, _: dict(value))
    made.register_structure_hook(SessionInfo, make_dict_structure_fn(SessionInfo, made, _raw=raw))
    plain = make_dict_unstructure_fn(SessionInfo, made, _raw=override(omit=True))
    made.register_unstructure_hook(SessionInfo, lambda info: {**plain(info), "raw": info.raw})


converter = new_converter()
"""The shared converter. Hooks are generated at first use and kept."""
