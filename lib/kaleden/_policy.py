"""Decisions, without a single await: how many at once, and for how long."""

from __future__ import annotations

import math
from typing import Any, final

from attrs import Attribute, field, frozen

from kaleden._errors import ConfigurationError


def _seconds(_: object, attribute: Attribute[Any], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        msg = f"{attribute.name} is a number of seconds above 0, not {value!r}"
        raise ConfigurationError(msg)


def _count(_: object, attribute: Attribute[Any], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        msg = f"{attribute.name} is a whole number of requests, 1 or more, not {value!r}"
        raise ConfigurationError(msg)


@final
@frozen
class Limits:
    """What one client may ask of the server.

    Attributes:
        timeout: seconds for one attempt of anything but a create.
        create_timeout: seconds for one attempt of a create; a busy server takes 60 to 90 for it.
        concurrency: requests in flight at once.
        create_concurrency: creates in flight at once, within `concurrency`.
        settle: seconds in which a create whose answer was lost may still show up in a list.
        create_grace: seconds that a create whose caller was cancelled has for its answer.
    """

    timeout: float = field(default=30.0, validator=_seconds)
    create_timeout: float = field(default=180.0, validator=_seconds)
    concurrency: int = field(default=32, validator=_count)
    create_concurrency: int = field(default=8, validator=_count)
    settle: float = field(default=10.0, validator=_seconds)
    create_grace: float = field(default=10.0, validator=_seconds)
