"""Names that go to the server: session names, session ids, image references.

Each check returns what it was given, or raises `InvalidRequest` with what to write instead.
"""

from __future__ import annotations

import re

from kaleden._errors import InvalidRequest

MAX_NAME = 63
"""Longest session name, replica suffix included: it becomes a host name label."""

IMAGE_HOST = "images.canfar.net"
"""The registry of an image reference that names none."""

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
# The server keeps the id as a Kubernetes label, so no other text can be one.
_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?")
_PATH_PART = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*")
_VERSION = re.compile(r"(?::\w[\w.-]{0,127})?(?:@[a-z0-9]+:[0-9a-f]{32,128})?", re.ASCII)


def shown(value: object, limit: int = 60) -> str:
    """Quote a value for a message, cut to *limit* characters; never raises."""
    try:
        quoted = repr(value[: limit + 1]) if isinstance(value, str | bytes) else repr(value)
    except Exception:  # noqa: BLE001  # whatever a stranger's repr raises, or an int too long for one
        quoted = f"<{type(value).__name__}>"
    return quoted if len(quoted) <= limit + 2 else f"{quoted[:limit]}…"


def check_id(value: object, what: str = "session id") -> str:
    """Return *value* if the server could have given it out as an id.

    Args:
        value: the id.
        what: how a message should call it.

    Raises:
        InvalidRequest: it cannot be an id.
    """
    if isinstance(value, str) and _ID.fullmatch(value):
        return value
    raise InvalidRequest(
        f"{what} {shown(value)} cannot be one: an id is 1 to 63 letters and digits "
        "(with '-', '_' or '.' between them); use one that create or fetch returned"
    )


def check_name(value: object) -> str:
    """Return *value* if the server takes it as a session name and leaves it as it is.

    The server puts names into lower case, so that a name with capitals would come back as another;
    and it makes a host name of them, which is why hyphens cannot stand at the edges.

    Raises:
        InvalidRequest: the name cannot be used.
    """
    if not isinstance(value, str):
        raise InvalidRequest(f"name must be a string, not {shown(value)}")
    if len(value) > MAX_NAME:
        raise InvalidRequest(
            f"name {shown(value)} has {len(value)} characters: use at most {MAX_NAME}"
        )
    if not _NAME.fullmatch(value):
        raise InvalidRequest(
            f"name {shown(value)} must be lower-case letters, digits and inner hyphens"
            f"{_suggestion(value)}"
        )
    return value


def replica_name(name: str, replica: int, replicas: int) -> str:
    """Return the name of one replica: ``-N`` is added only if there are several."""
    return name if replicas == 1 else f"{name}-{replica}"


def full_image(reference: str, host: str = IMAGE_HOST) -> str:
    """Return an image reference with a registry host and a tag.

    Args:
        reference: ``project/name``, ``project/name:tag``, the same after ``host/``, or with a
            digest ``@sha256:…``. The first part is a host if it has a dot or a colon, or is
            ``localhost``.
        host: the registry of a reference that names none.

    Returns:
        the reference, with *host* before it and ``:latest`` after it where they were missing.

    Raises:
        InvalidRequest: it is no image reference.
    """
    if not isinstance(reference, str):  # pyright: ignore[reportUnnecessaryIsInstance] # users' input
        raise InvalidRequest(f"image must be a string, not {shown(reference)}")
    if "://" in reference:
        raise _bad_image(reference, "leave out the scheme")
    if any(character.isspace() for character in reference):
        raise _bad_image(reference, "it has a space")
    *folders, last = reference.split("/")
    if not folders:
        raise _bad_image(reference, "name its project too")
    named, version = _split_version(last)
    has_host = _is_host(folders[0])
    _check_path(reference, [*(folders[1:] if has_host else folders), named])
    if not _VERSION.fullmatch(version):
        raise _bad_image(reference, "its tag cannot be one")
    if has_host and not _HOST.fullmatch(folders[0]):
        raise _bad_image(reference, "its host cannot be one")
    return f"{'' if has_host else f'{host}/'}{reference}{'' if version else ':latest'}"


def _suggestion(name: str) -> str:
    mended = re.sub(r"[\W_]+", "-", name.lower(), flags=re.ASCII).strip("-")
    return f": use {mended!r}" if mended else ""


def _is_host(part: str) -> bool:
    return "." in part or ":" in part or part == "localhost"


def _split_version(last: str) -> tuple[str, str]:
    """Split ``name:tag@digest`` before the tag or the digest."""
    match = re.search(r"[:@]", last)
    return (last, "") if match is None else (last[: match.start()], last[match.start() :])


def _check_path(reference: str, parts: list[str]) -> None:
    if not all(parts):
        raise _bad_image(reference, "it has an empty part")
    if any(part != part.lower() for part in parts):
        raise _bad_image(reference, "a repository is in lower case")
    if not all(_PATH_PART.fullmatch(part) for part in parts):
        raise _bad_image(reference, "letters, digits, and single '.', '_' or '-' between them")


def _bad_image(reference: str, why: str) -> InvalidRequest:
    return InvalidRequest(
        f"image {shown(reference)} is no image reference: {why}; "
        "write 'project/name:tag' or 'host/project/name:tag'"
    )
