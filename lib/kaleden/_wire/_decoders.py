"""From the server's JSON objects to models: the one place that knows its keys, old and new.

Every function here takes whatever JSON there is and loses nothing over one bad field. They are
written out, not generated: the type checker sees each field, and they are the hot path.
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
    cores,
    count,
    flag,
    gibibytes,
    is_object,
    optional_text,
    size,
    text,
    time,
)

_KINDS = {member.value: member for member in SessionKind}
_STATUSES = {member.value: member for member in SessionStatus}


def session_info(raw: JsonObject, body: bytes | None = None) -> SessionInfo:
    """Read one session, as lists and single replies have it.

    Args:
        raw: the object.
        body: the same as it came; kept in its place, if given.
    """
    get = raw.get
    return SessionInfo(
        # Without its name, because CPython 3.11 keeps, and never uses again, lists of twenty names.
        text(get("id")),
        name=text(get("name")),
        kind=_kind(get("type")),
        status=_status(get("status")),
        user=text(get("userid")),
        image=text(get("image")),
        start_time=time(get("startTime")),
        expiry_time=time(get("expiryTime")),
        connect_url=optional_text(get("connectURL")),
        requested_ram=size(get("requestedRAM")),
        ram_in_use=size(get("ramInUse")),
        requested_cores=cores(get("requestedCPUCores")),
        cores_in_use=cores(get("cpuCoresInUse", get("coresInUse"))),
        requested_gpus=count(get("requestedGPUCores")),
        fixed_resources=flag(get("isFixedResources")),
        uid=count(get("runAsUID")),
        gid=count(get("runAsGID")),
        groups=_counts(get("supplementalGroups")),
        app_id=optional_text(get("appid")),
        raw=raw if body is None else body,
    )


def image(raw: JsonObject) -> Image:
    """Read one image."""
    kinds = tuple(_kind(kind) for kind in as_array(raw.get("types")) if text(kind))
    return Image(text(raw.get("id")), kinds, optional_text(raw.get("digest")), raw)


def context(raw: JsonObject) -> ResourceOptions:
    """Read what sessions may ask for; only memory comes in a unit, GiB."""
    return ResourceOptions(
        cores=_choices(raw.get("cores")),
        memory=_choices(raw.get("memoryGB"), gibibytes),
        gpus=_choices(raw.get("gpus")),
        max_interactive_sessions=count(raw.get("maxInteractiveSessions")),
        raw=raw,
    )


def stats(raw: JsonObject) -> PlatformStats:
    """Read the platform's resources."""
    return PlatformStats(
        cores=_core_stats(as_object(raw.get("cores"))),
        ram=_ram_stats(as_object(raw.get("ram"))),
        gpu=_gpu_stats(raw.get("gpu")),
        instances=_instances(raw.get("instances")),
        raw=raw,
    )


def _core_stats(raw: JsonObject) -> CoreStats:
    largest = as_object(_first(raw, "maxCPUCores", "maxCores"))
    return CoreStats(
        requested=cores(_first(raw, "requestedCPUCores", "coresInUse")),
        available=cores(_first(raw, "cpuCoresAvailable", "coresAvailable")),
        largest=cores(_first(largest, "cpuCores", "cores")),
        largest_ram=size(largest.get("withRam")),
    )


def _ram_stats(raw: JsonObject) -> RamStats:
    largest = as_object(raw.get("maxRAM"))
    return RamStats(
        requested=size(_first(raw, "requestedRAM", "ramInUse")),
        available=size(raw.get("ramAvailable")),
        largest=size(largest.get("ram")),
        largest_cores=cores(_first(largest, "withCPUCores", "withCores")),
    )


def _gpu_stats(raw: Any) -> GpuStats | None:
    if not is_object(raw):
        return None
    return GpuStats(
        requested=count(raw.get("requestedGPU")),
        available=count(raw.get("gpuAvailable")),
        largest=count(raw.get("maxGPU")),
    )


def _instances(raw: Any) -> InstanceStats | None:
    if not is_object(raw):
        return None
    return InstanceStats(
        session=count(raw.get("session")),
        desktop_app=count(raw.get("desktopApp")),
        headless=count(raw.get("headless")),
        total=count(raw.get("total")),
    )


def _choices(value: Any, read: Any = count) -> Choices:
    raw = as_object(value)
    options = (read(option) for option in as_array(raw.get("options")))
    return Choices(
        default=read(raw.get("default")),
        default_request=read(raw.get("defaultRequest")),
        default_limit=read(raw.get("defaultLimit")),
        default_headless=read(raw.get("defaultHeadless")),
        options=tuple(option for option in options if option is not None),
    )


def _first(raw: JsonObject, *keys: str) -> Any:
    """Return what stands under the first of the keys that is there."""
    return next((raw[key] for key in keys if key in raw), None)


def _counts(value: Any) -> tuple[int, ...]:
    numbers = [count(element) for element in as_array(value)]
    return tuple([each for each in numbers if each is not None])


def _kind(value: Any) -> SessionKind:
    word = text(value)
    return _KINDS.get(word) or SessionKind(word or SessionKind.UNKNOWN)


def _status(value: Any) -> SessionStatus:
    word = text(value)
    return _STATUSES.get(word) or SessionStatus(word or SessionStatus.UNKNOWN)
