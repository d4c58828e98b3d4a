"""The registries, images and resource options of the embedded platform."""

from __future__ import annotations

import hashlib
from typing import Any

from attrs import frozen

from kaleden.local._platform._model import GIB, Kind, Settings

REGISTRIES = ("images.canfar.net",)
IMAGES = {
    "skaha/astroml:latest": (Kind.NOTEBOOK, Kind.HEADLESS),
    "skaha/base-notebook:latest": (Kind.NOTEBOOK, Kind.HEADLESS),
    "skaha/carta:latest": (Kind.CARTA,),
    "skaha/desktop:latest": (Kind.DESKTOP,),
    "skaha/firefly:latest": (Kind.FIREFLY,),
    "skaha/marimo:latest": (Kind.CONTRIBUTED,),
    "skaha/terminal:1.1.2": (Kind.DESKTOP_APP, Kind.HEADLESS),
}
# Images of this project are not listed, and need a registry login.
_PRIVATE = f"{REGISTRIES[0]}/private/"
_RAM_OPTIONS = (
    *(1, 2, 4, 6, 8, 10, 12, 14, 16, 20, 24, 26, 28, 30, 32, 36, 40, 44, 48, 56, 64, 80, 92),
    *(112, 128, 140, 170, 192),
)


def list_images(kind: Kind | None) -> list[dict[str, Any]]:
    """List the images of one kind, or all. The digests are computed from the names."""
    return [
        {
            "id": f"{REGISTRIES[0]}/{name}",
            "types": [str(each) for each in kinds],
            "digest": f"sha256:{hashlib.sha256(name.encode()).hexdigest()}",
        }
        for name, kinds in IMAGES.items()
        if kind is None or kind in kinds
    ]


def is_private(image: str) -> bool:
    """Return whether an image needs a registry login."""
    return image.startswith(_PRIVATE)


@frozen
class Resources:
    """The resources a user can request, up to the platform's capacity: cores, and GiB of memory.

    A session that requests no resources gets the ``default`` ones reserved, and may use the
    ``max_default`` ones.
    """

    core_options: tuple[int, ...]
    ram_options: tuple[int, ...]
    gpu_options: tuple[int, ...]
    default_cores: int
    max_default_cores: int
    default_ram: int
    max_default_ram: int

    @classmethod
    def from_settings(cls, settings: Settings) -> Resources:
        """Compute the options that a platform with these settings offers."""
        cores = tuple(n for n in range(1, 17) if 1000 * n <= settings.millicores)
        ram = tuple(n for n in _RAM_OPTIONS if GIB * n <= settings.ram)
        return cls(
            core_options=cores,
            ram_options=ram,
            gpu_options=tuple(range(1, 29)),
            default_cores=1,
            max_default_cores=min(8, cores[-1]),
            default_ram=min(4, ram[-1]),
            max_default_ram=min(32, ram[-1]),
        )

    def format_context(self, max_interactive_sessions: int) -> dict[str, Any]:
        """Return the body of ``GET /context``, for a user with this limit on sessions."""
        return {
            "cores": {
                "default": min(2, self.core_options[-1]),
                "defaultRequest": self.default_cores,
                "defaultLimit": self.max_default_cores,
                "options": list(self.core_options),
            },
            "memoryGB": {
                "default": min(8, self.ram_options[-1]),
                "defaultRequest": self.default_ram,
                "defaultLimit": self.max_default_ram,
                "options": list(self.ram_options),
            },
            "gpus": {"options": list(self.gpu_options)},
            "maxInteractiveSessions": max_interactive_sessions,
        }
