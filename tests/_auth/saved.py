"""Logins as the canfar client saves them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

CANFAR = "https://ws-uv.canfar.net/skaha"
OTHER = "https://other.example/skaha"


def document(**others: Any) -> dict[str, Any]:
    """A document of version 2, with a login by certificate and one by token."""
    return {
        "version": 2,
        "active": {"authentication": "cadc", "server": "canfar", "servers": {"cadc": "canfar"}},
        "authentication": {
            "cadc": {"idp": "cadc", "mode": "x509", "expiry": 0.0},
            "srcnet": {
                "idp": "srcnet",
                "mode": "oidc",
                "token": {"access": "an-access-token", "refresh": "a-refresh-token"},
                "expiry": {"access": time.time() + 3600, "refresh": time.time() + 86400},
            },
        },
        "servers": {
            "canfar": {"name": "canfar", "idp": "cadc", "url": CANFAR, "version": "v1"},
            "other": {"name": "other", "idp": "srcnet", "url": OTHER, "version": "v0"},
        },
        "registry": {},
        "console": {"width": 120},
        **others,
    }


def contexts(active: str) -> dict[str, Any]:
    """A document of the shape before version 1."""
    config = document()
    servers = {"default": "canfar", "sweden": "other"}
    modes = {"default": "cadc", "sweden": "srcnet"}
    return {
        "active": active,
        "contexts": {
            name: {**config["authentication"][modes[name]], "server": config["servers"][server]}
            for name, server in servers.items()
        },
        "registry": {},
    }


def save(home: Path, content: object, folder: str = ".canfar") -> Path:
    """Write a document, or a text, to where it is looked for; JSON is YAML too."""
    path = home / folder / "config.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def active(server: str, identity: str) -> dict[str, Any]:
    """A document with this active server."""
    return document(active={"authentication": identity, "server": server, "servers": {}})
