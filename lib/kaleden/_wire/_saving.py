"""The way to the converter, which is loaded when something is saved or read back."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cattrs.preconf.json import JsonConverter


@cache
def converter() -> JsonConverter:
    """Return the shared converter.

    With cattrs it takes a tenth of the time of ``import kaleden``, and few programs save anything.
    """
    from kaleden._wire._converter import converter as shared  # noqa: PLC0415

    return shared
