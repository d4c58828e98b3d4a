"""The ids to request, and the session object of 906 bytes that the server responds with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice, product

PREFIX = "/skaha/v1/session/"
TOKEN = "benchmark-token"  # noqa: S105 - it opens nothing
ID_LENGTH = 8

_ID_PLACEHOLDER = "k0000000"
_SESSION = {
    "id": _ID_PLACEHOLDER,
    "userid": "alice",
    "runAsUID": "10001",
    "runAsGID": "10001",
    "supplementalGroups": [20001, 20002, 20003, 20004, 30001, 30002, 30003, 30004],
    "appid": "<none>",
    "image": "images.canfar.net/skaha/astroml-notebook:26.04",
    "type": "notebook",
    "status": "Running",
    "name": "reduce-the-fields-of-2026-08",
    "startTime": "2026-08-01T10:20:30Z",
    "expiryTime": "2026-08-15T10:20:30Z",
    "connectURL": f"https://workload-uv.canfar.net/session/notebook/{_ID_PLACEHOLDER}/lab/tree/arc/home/alice"
    f"?token={_ID_PLACEHOLDER}",
    "requestedRAM": "17.18",
    "requestedCPUCores": "4",
    "requestedGPUCores": "0",
    "ramInUse": "3.81",
    "gpuRAMInUse": "<none>",
    "cpuCoresInUse": "1.374",
    "gpuUtilization": "<none>",
    "isFixedResources": True,
    "note": "",
}
_SESSION["note"] = "x" * (906 - len(json.dumps(_SESSION)))
_PIECES = json.dumps(_SESSION).split(_ID_PLACEHOLDER)


def make_body(key: str) -> str:
    """Return the session object with this id, as JSON."""
    return key.join(_PIECES)


def generate_keys() -> Iterator[str]:
    """Yield distinct ids in the format of a platform's, far more than any scene needs."""
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    for combined in product(digits, repeat=ID_LENGTH - 1):
        yield "k" + "".join(combined)


def list_keys(count: int) -> list[str]:
    """Return the first *count* ids."""
    return list(islice(generate_keys(), count))
