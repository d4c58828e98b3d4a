"""How the server writes things: session objects, times, tables of events, statistics, XML."""

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


def to_json(value: Any) -> bytes:
    """Write JSON as the server does: indented by two spaces."""
    return json.dumps(value, indent=2, ensure_ascii=False).encode()


def java_time(seconds: float) -> str:
    """Write a time as Java's OffsetDateTime does: without its seconds if they are zero."""
    time = datetime.fromtimestamp(int(seconds), UTC)
    return time.strftime("%Y-%m-%dT%H:%M:%SZ" if time.second else "%Y-%m-%dT%H:%MZ")


def kubernetes_time(seconds: float) -> str:
    """Write a time as Kubernetes does."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def gigabytes(size: int) -> str:
    """Write bytes as decimal gigabytes, without a unit: 4 GiB are "4.29"."""
    return f"{size / GB:.2f}"


def cores(millicores: int) -> str:
    """Write cores: whole ones as "2", others as "0.250"."""
    whole, rest = divmod(millicores, 1000)
    return f"{millicores / 1000:.3f}" if rest else str(whole)


def connect_url(session: Session, origin: str) -> str:
    """Give the page of a session; headless sessions and desktop apps have none.

    The id in it is the secret that opens it.
    """
    page = _PAGES.get(session.spec.kind)
    return "" if page is None else f"{origin}/session/{page(session)}"


def session_object(session: Session, origin: str) -> dict[str, Any]:
    """Give what list and info say of a session; what is not known is left out."""
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
        "startTime": None if session.started is None else java_time(session.started),
        "expiryTime": None if session.expires is None else java_time(session.expires),
        "connectURL": connect_url(session, origin),
        "requestedRAM": gigabytes(spec.ram) if spec.fixed else None,
        "requestedCPUCores": cores(spec.millicores) if spec.fixed else None,
        "requestedGPUCores": str(spec.gpus),
        "ramInUse": None if session.ram_in_use is None else gigabytes(session.ram_in_use),
        "cpuCoresInUse": None if session.cores_in_use is None else f"{session.cores_in_use:.3f}",
        "isFixedResources": spec.fixed,
    }
    return {name: value for name, value in known.items() if value is not None}


def public_object(session: Session) -> dict[str, Any]:
    """Give what ``view=all`` says of anybody's session."""
    known = {
        "userid": session.user,
        "type": session.spec.kind,
        "status": session.status,
        "startTime": None if session.started is None else java_time(session.started),
    }
    return {name: value for name, value in known.items() if value is not None}


def events_table(events: Iterable[Event]) -> str:
    """Write events as kubectl's custom columns, at least three spaces apart."""
    rows = [
        (event.type, event.reason, event.message, *map(kubernetes_time, (event.first, event.last)))
        for event in events
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


def statistics(reserved: tuple[int, int], gpus: int, settings: Settings) -> dict[str, Any]:
    """Give the answer to ``view=stats``; "available" is capacity, whether free or not."""
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


def job_not_found(user: str, kind: str, id_: str) -> str:
    """Write the text of the 500 that hides why Kubernetes did not take a job."""
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


def capabilities(base: str) -> str:
    """Write the VOSI capabilities of the platform whose base URL this is."""
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
    written = "".join(_capability(*offer) for offer in offers)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<vosi:capabilities xmlns:vosi="http://www.ivoa.net/xml/VOSICapabilities/v1.0" '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">\n'
        f"{written}</vosi:capabilities>\n"
    )


def _capability(standard: str, url: str, methods: Iterable[str]) -> str:
    lines = "".join(f"      <securityMethod standardID={quoteattr(m)} />\n" for m in methods)
    return _CAPABILITY.format(standard=quoteattr(standard), url=escape(url), methods=lines)
