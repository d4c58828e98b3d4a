"""Conversion of the models to plain JSON data, and back without loss.

It serves saved results, ledgers and caches. The server's responses have another format, which
`_decoders` reads. Note that a saved `SessionSpec` contains the values of its ``env``.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from attrs import has, resolve_types

from kaleden._wire import _models
from kaleden._wire._enums import OpenEnum
from kaleden._wire._models import SessionInfo
from kaleden._wire._spec import Launch, SessionSpec

if TYPE_CHECKING:
    from cattrs.preconf.json import JsonConverter

MODELS: tuple[type, ...] = (*filter(has, vars(_models).values()), Launch, SessionSpec)
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
    from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override  # noqa: PLC0415
    from cattrs.preconf.json import make_converter  # noqa: PLC0415

    # Annotations are strings. They are resolved now, because attrs looks them up in the module that
    # `__module__` names, and `publish` changes that.
    for model in MODELS:
        resolve_types(model)

    converter = make_converter(detailed_validation=False)
    # Plain strings, not enumeration members: some serializers check the exact type.
    converter.register_unstructure_hook(OpenEnum, lambda member: member.value)
    # Save `SessionInfo.raw` as a plain object, also if it is stored as bytes.
    raw = override(rename="raw", struct_hook=lambda value, _: dict(value))
    converter.register_structure_hook(
        SessionInfo, make_dict_structure_fn(SessionInfo, converter, _raw=raw)
    )
    plain = make_dict_unstructure_fn(SessionInfo, converter, _raw=override(omit=True))
    converter.register_unstructure_hook(SessionInfo, lambda info: {**plain(info), "raw": info.raw})
    return converter
