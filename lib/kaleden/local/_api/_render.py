"""Serialization of response bodies: sessions, times, event tables, statistics, XML."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from kaleden.local._platform._model import GIB, Event, Kind, Session, Settings

UID = "10001"
GB = 1000**3
_PAGES: dict[Kind, Callable[[Session], str]] = {
    Kind.CARTA: lambda s: f"carta/{s.id}/",
    Kind.CONTRIBUTED: lambda s: f"contrib/{s.id}/",
    Kind.DESKTOP: lambda s: f"desktop/{s.id}/?password={s.id}&path=session/desktop/{s.id}/",
    Kind.FIREFLY: lambda s: f"firefly/{s.id}/firefly/",
    Kind.NOTEBOOK: lambda s: f"notebook/{s.id}/lab/tree/arc/home/{s.user}?token={s.id}",
}


def encode_json(value: Any) -> bytes:
    """Encode a value as JSON, indented by two spaces as on the server."""
    return json.dumps(value, indent=2, ensure_ascii=False).encode()


def format_java_time(seconds: float) -> str:
    """Format a time as Java's OffsetDateTime does: without the seconds if they are zero."""
    time = datetime.fromtimestamp(int(seconds), UTC)
    return time.strftime("%Y-%m-%dT%H:%M:%SZ" if time.second else "%Y-%m-%dT%H:%MZ")


def format_kubernetes_time(seconds: float) -> str:
    """Format a time as Kubernetes does."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_gigabytes(size: int) -> str:
    """Format bytes as decimal gigabytes, without a unit: 4 GiB is "4.29"."""
    return f"{size / GB:.2f}"


def format_cores(millicores: int) -> str:
    """Format cores: a whole number as "2", others as "0.250"."""
    whole, rest = divmod(millicores, 1000)
    return f"{millicores / 1000:.3f}" if rest else str(whole)


def format_connect_url(session: Session, origin: str) -> str:
    """Return the URL of a session's page; empty for headless sessions and desktop apps.

    The id in the URL is the secret that gives access to the page.
    """
    page = _PAGES.get(session.spec.kind)
    return "" if page is None else f"{origin}/session/{page(session)}"


def format_session(session: Session, origin: str) -> dict[str, Any]:
    """Return the object of a session in list and info, without unknown fields."""
    spec = session.spec
    known: dict[str, Any] = {
        "id": session.id,
        "userid": session.user,
        "runAsUID": UID,
        "runAsGID": UID,
        "supplementalGroups": [],
        "appid": session.appid,
        "image": spec.image,
        "type": spec.kind,
        "status": session.status,
        "name": spec.name,
        "startTime": None if session.started is None else format_java_time(session.started),
        "expiryTime": None if session.expires is None else format_java_time(session.expires),
        "connectURL": format_connect_url(session, origin),
        "requestedRAM": format_gigabytes(spec.ram) if spec.fixed else None,
        "requestedCPUCores": format_cores(spec.millicores) if spec.fixed else None,
        "requestedGPUCores": str(spec.gpus),
        "ramInUse": None if session.ram_in_use is None else format_gigabytes(session.ram_in_use),
        "cpuCoresInUse": None if session.cores_in_use is None else f"{session.cores_in_use:.3f}",
        "isFixedResources": spec.fixed,
    }
    return {name: value for name, value in known.items() if value is not None}


def format_public_session(session: Session) -> dict[str, Any]:
    """Return the object of a session in ``view=all``, which is visible to all users."""
    known = {
        "userid": session.user,
        "type": session.spec.kind,
        "status": session.status,
        "startTime": None if session.started is None else format_java_time(session.started),
    }
    return {name: value for name, value in known.items() if value is not None}


def format_events(events: Iterable[Event]) -> str:
    """Format events as kubectl's custom columns, at least three spaces apart."""
    rows = [
        (e.type, e.reason, e.message, *map(format_kubernetes_time, (e.first, e.last)))
        for e in events
    ]
    if not rows:
        return "<none>\n"
    rows.insert(0, ("TYPE", "REASON", "MESSAGE", "FIRST-TIME", "LAST-TIME"))
    widths = [max(map(len, column)) + 3 for column in zip(*rows, strict=True)]
    lines = (
        "".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    return "".join(f"{line}\n" for line in lines)


def format_statistics(reserved: tuple[int, int], gpus: int, settings: Settings) -> dict[str, Any]:
    """Return the body of ``view=stats``. "Available" is the whole capacity, not the free part."""
    millicores, ram = reserved
    all_cores, all_ram = settings.millicores / 1000, settings.ram / GB
    return {
        "cores": {
            "requestedCPUCores": millicores / 1000,
            "cpuCoresAvailable": all_cores,
            "maxCPUCores": {"cpuCores": all_cores, "withRam": f"{settings.ram // GIB}G"},
        },
        "ram": {
            "requestedRAM": f"{ram / GB:.3f}G",
            "ramAvailable": f"{all_ram:.3f}G",
            "maxRAM": {"ram": f"{settings.ram // GIB}G", "withCPUCores": all_cores},
        },
        "gpu": {"requestedGPU": gpus, "gpuAvailable": 0, "maxGPU": 0},
    }


def format_job_not_found(user: str, kind: str, id_: str) -> str:
    """Return the text of the 500 response, which hides why Kubernetes rejected a job."""
    name = f"skaha-{kind}-{user}-{id_}"
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": f'jobs.batch "{name}" not found',
        "reason": "NotFound",
        "details": {"name": name, "group": "batch", "kind": "jobs"},
        "code": 404,
    }
    return (
        "unexpected exception: java.lang.RuntimeException: "
        "io.kubernetes.client.openapi.ApiException: Message: \nHTTP response code: 404\n"
        f"HTTP response body: {json.dumps(status, separators=(',', ':'))}\n"
        "HTTP response headers: {}"
    )


def format_error_page(status: str) -> bytes:
    """Return the error page of the servlet container, which answers before the service."""
    title = f"HTTP Status {status}"
    return f"<!doctype html><title>{title}</title><h1>{title}</h1>".encode()


AVAILABILITY = """\
<?xml version="1.0" encoding="UTF-8"?>
<vosi:availability xmlns:vosi="http://www.ivoa.net/xml/VOSIAvailability/v1.0">
  <vosi:available>true</vosi:available>
  <vosi:note>service is accepting requests</vosi:note>
</vosi:availability>
"""

_CAPABILITY = """\
  <capability standardID={standard}>
    <interface xmlns:vs="http://www.ivoa.net/xml/VODataService/v1.1" xsi:type="vs:ParamHTTP" \
role="std" version="1.0">
      <accessURL use="base">{url}</accessURL>
{methods}    </interface>
  </capability>
"""
_SECURITY = tuple(f"ivo://ivoa.net/sso#{m}" for m in ("cookie", "tls-with-certificate", "token"))


def format_capabilities(base: str) -> str:
    """Return the VOSI capabilities of the platform with this base URL."""
    platform = "http://www.opencadc.org/std/platform"
    offers = [
        ("ivo://ivoa.net/std/VOSI#capabilities", f"{base}/capabilities", ()),
        ("ivo://ivoa.net/std/VOSI#availability", f"{base}/availability", ()),
        ("vos://cadc.nrc.ca~vospace/CADC/std/Proc#sessions-1.0", f"{base}/v0", _SECURITY),
        (f"{platform}#session-1", f"{base}/v1/session", _SECURITY),
        (f"{platform}#context-1", f"{base}/v1/context", _SECURITY),
        (f"{platform}#image-1", f"{base}/v1/image", _SECURITY),
        (f"{platform}#repository-1", f"{base}/v1/repository", _SECURITY),
    ]
    written = "".join(_format_capability(*offer) for offer in offers)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<vosi:capabilities xmlns:vosi="http://www.ivoa.net/xml/VOSICapabilities/v1.0" '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">\n'
        f"{written}</vosi:capabilities>\n"
    )


def _format_capability(standard: str, url: str, methods: Iterable[str]) -> str:
    lines = "".join(f"      <securityMethod standardID={quoteattr(m)} />\n" for m in methods)
    return _CAPABILITY.format(standard=quoteattr(standard), url=escape(url), methods=lines)
