"""Samples of responses of old and new servers, and functions that make a `Response`."""

from __future__ import annotations

import json
from typing import Any

from kaleden._wire import Response

RUNNING: dict[str, Any] = {
    "id": "k3jd92xa",
    "userid": "alice",
    "runAsUID": "10001",
    "runAsGID": "10001",
    "supplementalGroups": [20001],
    "image": "images.canfar.net/skaha/terminal:1.1.2",
    "type": "headless",
    "status": "Running",
    "name": "demo-1",
    "startTime": "2026-08-01T10:20:30Z",
    "expiryTime": "2026-08-15T10:20:30Z",
    "connectURL": "",
    "requestedRAM": "4.29",
    "requestedCPUCores": "1",
    "requestedGPUCores": "0",
    "ramInUse": "0.12",
    "cpuCoresInUse": "0.003",
    "isFixedResources": True,
}

PENDING = {
    key: value
    for key, value in RUNNING.items()
    if key not in {"startTime", "expiryTime", "ramInUse", "cpuCoresInUse"}
} | {"status": "Pending"}

NOTEBOOK = RUNNING | {
    "type": "notebook",
    "connectURL": "https://host/session/notebook/k3jd92xa/lab/tree/arc/home/alice?token=k3jd92xa",
}

# A session object of servers before 1.0.
OLD: dict[str, Any] = {
    "id": "rt3c9wq1",
    "userid": "alice",
    "runAsUID": "<none>",
    "runAsGID": "",
    "supplementalGroups": [],
    "appid": "<none>",
    "image": "images.canfar.net/skaha/terminal:1.1.2",
    "type": "headless",
    "status": "Succeeded",
    "name": "old",
    "startTime": "2025-04-10T15:45Z",
    "expiryTime": "<none>",
    "connectURL": "not-applicable",
    "requestedRAM": "16G",
    "requestedCPUCores": "2",
    "requestedGPUCores": "<none>",
    "ramInUse": "101M",
    "coresInUse": "2m",
}

OTHER_USER = {
    "userid": "bob",
    "type": "carta",
    "status": "Running",
    "startTime": "2026-08-01T10:20:30Z",
}

EVENTS = """\
TYPE     REASON      MESSAGE                                    FIRST-TIME             LAST-TIME
Normal   Scheduled   Successfully assigned ns/skaha-headless…   2026-08-01T10:20:29Z   2026-08-01T10:20:30Z
Warning   BackOff     Back-off   pulling image "x"   2026-08-01T10:21:00Z   <none>
"""  # noqa: E501 # the table is as wide as servers make it

STATS: dict[str, Any] = {
    "cores": {
        "requestedCPUCores": 377.5,
        "cpuCoresAvailable": 960.0,
        "maxCPUCores": {"cpuCores": 32.0, "withRam": "192G"},
    },
    "ram": {
        "requestedRAM": "9432.822G",
        "ramAvailable": "15032.386G",
        "maxRAM": {"ram": "192G", "withCPUCores": 16.0},
    },
    "gpu": {"requestedGPU": 3, "gpuAvailable": 28, "maxGPU": 4},
}

OLD_STATS: dict[str, Any] = {
    "instances": {"session": 88, "desktopApp": 30, "headless": 1, "total": 119},
    "cores": {
        "coresInUse": 377,
        "coresAvailable": 960,
        "maxCores": {"cores": 32, "withRam": "147Gi"},
    },
    "ram": {"maxRAM": {"ram": "226Gi", "withCores": 32}},
}

CONTEXT: dict[str, Any] = {
    "cores": {"default": 2, "defaultRequest": 1, "defaultLimit": 8, "options": [1, 2, 4]},
    "memoryGB": {"default": 8, "defaultRequest": 4, "defaultLimit": 32, "options": [1, 2]},
    "gpus": {"options": [1, 2]},
    "maxInteractiveSessions": 5,
}

IMAGES: list[Any] = [
    {
        "id": "images.canfar.net/skaha/terminal:1.1.2",
        "types": ["headless", "notebook"],
        "digest": "sha256:0123",
    },
    {"id": "images.canfar.net/skaha/carta:4.1", "types": ["carta"]},
]

AVAILABILITY = """<?xml version="1.0" encoding="UTF-8"?>
<vosi:availability xmlns:vosi="http://www.ivoa.net/xml/VOSIAvailability/v1.0">
  <vosi:available>true</vosi:available>
  <vosi:note>service is accepting requests.</vosi:note>
  <vosi:note>with one experiment</vosi:note>
</vosi:availability>
"""

KUBERNETES_500 = (
    "unexpected exception: java.lang.RuntimeException: "
    "io.kubernetes.client.openapi.ApiException: Message: \n"
    "HTTP response code: 404\n"
    'HTTP response body: {"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure",'
    r'"message":"jobs.batch \"skaha-headless-alice-k3jd92xa\" not found","reason":"NotFound",'
    '"details":{"name":"skaha-headless-alice-k3jd92xa"},"code":404}\n'
    "HTTP response headers: {content-type=[application/json]}"
)

PAGE = """<!doctype html>
<html><head><title>502 Bad&nbsp;Gateway</title><style>p {}</style></head>
<body><h1>502</h1><p>nginx</p></body></html>
"""


def make_response(
    body: str | bytes = b"", status: int = 200, kind: str = "text/plain", **headers: str
) -> Response:
    """Make a response; in the names of *headers*, ``_`` is replaced by ``-``."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    content = body.encode() if isinstance(body, str) else body
    return Response(status, ({"content-type": kind} if kind else {}) | given, content)


def make_json_response(value: Any) -> Response:
    """Make a JSON response."""
    return make_response(json.dumps(value), kind="application/json")
