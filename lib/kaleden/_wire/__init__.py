"""Sans-I/O implementation of the Skaha API.

Builders turn arguments into a `Request`, parsers turn a `Response` into models, and `classify`
finds the failure in a response. Nothing here opens a socket or waits. The clock is read in one
case: `classify` without its argument *now*, for a Retry-After header that is a date.
"""

from __future__ import annotations

from kaleden._wire._classify import ErrorResponse, classify
from kaleden._wire._enums import TERMINAL_STATUSES, SessionKind, SessionStatus
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
from kaleden._wire._requests import FORM_TYPE, Headers, Request, build_registry_header
from kaleden._wire._responses import IncrementalParser, MalformedResponse, Response
from kaleden._wire._serialization import get_converter
from kaleden._wire._spec import Launch, SessionSpec
from kaleden._wire._validation import (
    check_id,
    check_kind,
    check_name,
    check_status,
    format_value,
)

__all__ = (
    "FORM_TYPE",
    "TERMINAL_STATUSES",
    "Availability",
    "Choices",
    "CoreStats",
    "ErrorResponse",
    "Event",
    "GpuStats",
    "Headers",
    "Image",
    "IncrementalParser",
    "InstanceStats",
    "Launch",
    "Listing",
    "MalformedResponse",
    "PlatformStats",
    "RamStats",
    "Request",
    "ResourceOptions",
    "Response",
    "SessionInfo",
    "SessionKind",
    "SessionSpec",
    "SessionStatus",
    "build_registry_header",
    "check_id",
    "check_kind",
    "check_name",
    "check_status",
    "classify",
    "format_value",
    "get_converter",
)
