"""The one converter: every model of this package to plain JSON data, and back exactly.

For what is kept: saved results, ledgers, caches. What the server sends is another shape, and
`_readers` reads that. Keep in mind that a saved `SessionSpec` has the values of its ``env`` in it.
"""

from __future__ import annotations

from attrs import resolve_types
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
    return made


converter = new_converter()
"""The shared converter. Hooks are generated at first use and kept."""
