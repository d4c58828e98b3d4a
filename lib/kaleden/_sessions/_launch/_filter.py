"""Filters of sessions by name and status."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import cast

from kaleden._errors import InvalidRequest
from kaleden._wire import SessionInfo, check_status


def build_filter(prefix: object, status: str | None) -> Callable[[SessionInfo], bool]:
    """Return a function that selects sessions by name and status.

    Args:
        prefix: the start of the name, or a compiled pattern that matches at its start.
        status: the status; None for any.

    Raises:
        InvalidRequest: no session can have such a name or status.
    """
    matches_name = _build_name_matcher(prefix)
    wanted = None if status is None else check_status(status)

    def is_selected(info: SessionInfo) -> bool:
        return bool(matches_name(info.name)) and (wanted is None or info.status.matches(wanted))

    return is_selected


def _build_name_matcher(prefix: object) -> Callable[[str], object]:
    """Return a function that matches names; the server converts all names to lower case."""
    if isinstance(prefix, re.Pattern):
        return cast("re.Pattern[str]", prefix).match

    if not isinstance(prefix, str) or not re.fullmatch("[A-Za-z0-9-]+", prefix):
        msg = (
            f"no session's name can begin with {prefix!r}: give letters, digits and hyphens, or a "
            "pattern from re.compile"
        )
        raise InvalidRequest(msg)

    return re.compile(prefix, re.IGNORECASE).match
