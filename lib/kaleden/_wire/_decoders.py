"""Decoders from the server's JSON objects to models.

This is the only module that knows the server's keys, those of old servers included. Each function
accepts any JSON value; a malformed field becomes None and does not affect the others. The code is
written out, not generated, so that the type checker sees each field, and because it is on the hot
path.
"""

from __future__ import annotations

from typing import Any

from kaleden._wire._enums import SessionKind, SessionStatus
from kaleden._wire._models import (
    Choices,
    CoreStats,
    GpuStats,
    Image,
    InstanceStats,
    PlatformStats,
    RamStats,
    ResourceOptions,
    SessionInfo,
)
from kaleden._wire._primitives import (
    JsonObject,
    as_array,
    as_object,
    is_object,
    parse_cores,
    parse_count,
    parse_flag,
    parse_gibibytes,
    parse_optional_text,
    parse_size,
    parse_text,
    parse_time,
)

_KINDS = {member.value: member for member in SessionKind}
_STATUSES = {member.value: member for member in SessionStatus}


def read_session_info(raw: JsonObject, body: bytes | None = None) -> SessionInfo:
    """Read one session, from a list or from a response about a single session.

    Args:
        raw: the JSON object.
        body: the bytes of the same object; if given, they are stored in its place.
    """
    get = raw.get
    return SessionInfo(
        # Positional: CPython 3.11 retains, and never reuses, lists of 20 keyword names.
        parse_text(get("id")),
        name=parse_text(get("name")),
        kind=_parse_kind(get("type")),
        status=_parse_status(get("status")),
        user=parse_text(get("userid")),
        image=parse_text(get("image")),
        start_time=parse_time(get("startTime")),
        expiry_time=parse_time(get("expiryTime")),
        connect_url=parse_optional_text(get("connectURL")),
        requested_ram=parse_size(get("requestedRAM")),
        ram_in_use=parse_size(get("ramInUse")),
        requested_cores=parse_cores(get("requestedCPUCores")),
        cores_in_use=parse_cores(get("cpuCoresInUse", get("coresInUse"))),
        requested_gpus=parse_count(get("requestedGPUCores")),
        fixed_resources=parse_flag(get("isFixedResources")),
        uid=parse_count(get("runAsUID")),
        gid=parse_count(get("runAsGID")),
        groups=_parse_counts(get("supplementalGroups")),
        app_id=parse_optional_text(get("appid")),
        raw=raw if body is None else body,
    )


def read_image(raw: JsonObject) -> Image:
    """Read one image."""
    kinds = tuple(_parse_kind(kind) for kind in as_array(raw.get("types")) if parse_text(kind))
    return Image(parse_text(raw.get("id")), kinds, parse_optional_text(raw.get("digest")), raw)


def read_context(raw: JsonObject) -> ResourceOptions:
    """Read the resources that sessions may request. Memory is in GiB; the others have no unit."""
    return ResourceOptions(
        cores=_read_choices(raw.get("cores")),
        memory=_read_choices(raw.get("memoryGB"), parse_gibibytes),
        gpus=_read_choices(raw.get("gpus")),
        max_interactive_sessions=parse_count(raw.get("maxInteractiveSessions")),
        raw=raw,
    )


def read_stats(raw: JsonObject) -> PlatformStats:
    """Read the platform's resources."""
    return PlatformStats(
        cores=_read_core_stats(as_object(raw.get("cores"))),
        ram=_read_ram_stats(as_object(raw.get("ram"))),
        gpu=_read_gpu_stats(raw.get("gpu")),
        instances=_read_instance_stats(raw.get("instances")),
        raw=raw,
    )


def _read_core_stats(raw: JsonObject) -> CoreStats:
    largest = as_object(_get_first(raw, "maxCPUCores", "maxCores"))
    return CoreStats(
        requested=parse_cores(_get_first(raw, "requestedCPUCores", "coresInUse")),
        available=parse_cores(_get_first(raw, "cpuCoresAvailable", "coresAvailable")),
        largest=parse_cores(_get_first(largest, "cpuCores", "cores")),
        largest_ram=parse_size(largest.get("withRam")),
    )


def _read_ram_stats(raw: JsonObject) -> RamStats:
    largest = as_object(raw.get("maxRAM"))
    return RamStats(
        requested=parse_size(_get_first(raw, "requestedRAM", "ramInUse")),
        available=parse_size(raw.get("ramAvailable")),
        largest=parse_size(largest.get("ram")),
        largest_cores=parse_cores(_get_first(largest, "withCPUCores", "withCores")),
    )


def _read_gpu_stats(raw: Any) -> GpuStats | None:
    if not is_object(raw):
        return None
    return GpuStats(
        requested=parse_count(raw.get("requestedGPU")),
        available=parse_count(raw.get("gpuAvailable")),
        largest=parse_count(raw.get("maxGPU")),
    )


def _read_instance_stats(raw: Any) -> InstanceStats | None:
    if not is_object(raw):
        return None
    return InstanceStats(
        session=parse_count(raw.get("session")),
        desktop_app=parse_count(raw.get("desktopApp")),
        headless=parse_count(raw.get("headless")),
        total=parse_count(raw.get("total")),
    )


def _read_choices(value: Any, read: Any = parse_count) -> Choices:
    raw = as_object(value)
    options = (read(option) for option in as_array(raw.get("options")))
    return Choices(
        default=read(raw.get("default")),
        default_request=read(raw.get("defaultRequest")),
        default_limit=read(raw.get("defaultLimit")),
        default_headless=read(raw.get("defaultHeadless")),
        options=tuple(option for option in options if option is not None),
    )


def _get_first(raw: JsonObject, *keys: str) -> Any:
    """Return the value of the first of *keys* that is present."""
    return next((raw[key] for key in keys if key in raw), None)


def _parse_counts(value: Any) -> tuple[int, ...]:
    numbers = [parse_count(element) for element in as_array(value)]
    return tuple([each for each in numbers if each is not None])


def _parse_kind(value: Any) -> SessionKind:
    name = parse_text(value)
    return _KINDS.get(name) or SessionKind(name or SessionKind.UNKNOWN)


def _parse_status(value: Any) -> SessionStatus:
    name = parse_text(value)
    return _STATUSES.get(name) or SessionStatus(name or SessionStatus.UNKNOWN)
