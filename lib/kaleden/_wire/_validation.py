r"""What a launch may ask for: refused here is what the server would drop, mangle or choke on.

The server puts ``cmd``, ``args`` and ``env`` into double-quoted YAML and then through a replacement
that gives ``$`` and ``\`` a meaning, so a text with those, with ``"`` or with control characters
does not reach the container as it was written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeGuard, TypeVar

from kaleden._errors import InvalidRequest
from kaleden._wire._enums import OpenEnum, SessionKind, SessionStatus

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


def format_value(value: object, limit: int = 60) -> str:
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
        f"{what} {format_value(value)} cannot be one: an id is 1 to 63 letters and digits "
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
        raise InvalidRequest(f"name must be a string, not {format_value(value)}")
    if len(value) > MAX_NAME:
        raise InvalidRequest(
            f"name {format_value(value)} has {len(value)} characters: use at most {MAX_NAME}"
        )
    if not _NAME.fullmatch(value):
        raise InvalidRequest(
            f"name {format_value(value)} must be lower-case letters, digits and inner hyphens"
            f"{_suggest_name(value)}"
        )
    return value


def format_replica_name(name: str, replica: int, replicas: int) -> str:
    """Return the name of one replica: ``-N`` is added only if there are several."""
    return name if replicas == 1 else f"{name}-{replica}"


def complete_image(reference: str, host: str = IMAGE_HOST) -> str:
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
        raise InvalidRequest(f"image must be a string, not {format_value(reference)}")
    if "://" in reference:
        raise _make_image_error(reference, "leave out the scheme")
    if any(character.isspace() for character in reference):
        raise _make_image_error(reference, "it has a space")
    *folders, last = reference.split("/")
    if not folders:
        raise _make_image_error(reference, "name its project too")
    named, version = _split_version(last)
    has_host = _is_host(folders[0])
    _check_path(reference, [*(folders[1:] if has_host else folders), named])
    if not _VERSION.fullmatch(version):
        raise _make_image_error(reference, "its tag cannot be one")
    if has_host and not _HOST.fullmatch(folders[0]):
        raise _make_image_error(reference, "its host cannot be one")
    return f"{'' if has_host else f'{host}/'}{reference}{'' if version else ':latest'}"


def _suggest_name(name: str) -> str:
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
        raise _make_image_error(reference, "it has an empty part")
    if any(part != part.lower() for part in parts):
        raise _make_image_error(reference, "a repository is in lower case")
    if not all(_PATH_PART.fullmatch(part) for part in parts):
        raise _make_image_error(
            reference, "letters, digits, and single '.', '_' or '-' between them"
        )


def _make_image_error(reference: str, why: str) -> InvalidRequest:
    return InvalidRequest(
        f"image {format_value(reference)} is no image reference: {why}; "
        "write 'project/name:tag' or 'host/project/name:tag'"
    )


EnumT = TypeVar("EnumT", bound=OpenEnum)

MAX_REPLICAS = 10_000
"""Most replicas of one spec. The server has no such limit; this one is against slips of the pen."""

MAX_AMOUNT = 1_000_000
"""Most cores, GiB or GPUs of one session. What a server really offers is in its
`ResourceOptions`."""

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WORKAROUND = "send it as URL-safe base64 without padding, and decode it in the container"
# How wide characters come out depends on the encodings that the server's host is set to.
_UNSAFE = re.compile(r'[$"\\]|[^ -~]')


def check_kind(value: str) -> SessionKind:
    """Return the kind, if the server has it.

    A kind that is not known here is taken only as `SessionKind`, so that a slip of the pen in a
    string is told and a newer server's kind can still be used.

    Raises:
        InvalidRequest: no kind of that name is known.
    """
    if isinstance(value, SessionKind):
        return value
    kind = _find_member(SessionKind, value)
    if kind is None or kind is SessionKind.UNKNOWN:
        known = ", ".join(known for known in SessionKind if known is not SessionKind.UNKNOWN)
        raise InvalidRequest(
            f"kind {format_value(value)} is not known: use one of {known} "
            "(or kaleden.SessionKind(...) for one that only your server knows)"
        )
    return kind


def check_status(value: str) -> SessionStatus:
    """Return the status, if servers have it; a `SessionStatus` passes unchecked.

    Raises:
        InvalidRequest: no status of that name is known.
    """
    if isinstance(value, SessionStatus):
        return value
    status = _find_member(SessionStatus, value)
    if status is None:
        raise InvalidRequest(
            f"status {format_value(value)} is not known: use one of {', '.join(SessionStatus)} "
            "(or kaleden.SessionStatus(...) for one that only your server knows)"
        )
    return status


def check_launchable(kind: SessionKind) -> None:
    """Refuse the kinds that no launch can make.

    Raises:
        InvalidRequest: sessions of that kind come about in another way.
    """
    if kind is SessionKind.DESKTOP_APP:
        raise InvalidRequest(
            "kind 'desktop-app' is launched through its desktop: create it with the desktop's id"
        )
    if kind is SessionKind.UNKNOWN:
        raise InvalidRequest("kind 'unknown' cannot be launched: name the kind")


def check_cores(value: object) -> None:
    """Refuse what cannot be a number of CPU cores; the server wants a whole part of at least 1.

    Raises:
        InvalidRequest: it is no such number.
    """
    if value is not None and not (_is_number(value) and 1 <= value <= MAX_AMOUNT):
        raise InvalidRequest(
            f"cores must be a number from 1 to {MAX_AMOUNT}, not {format_value(value)}: "
            "leave it out for flexible resources"
        )


def check_ram(value: object) -> None:
    """Refuse what cannot be a memory size in GiB.

    Raises:
        InvalidRequest: it is no such number.
    """
    if value is not None and not _is_whole(value, MAX_AMOUNT):
        raise InvalidRequest(
            f"ram must be a whole number of GiB from 1 to {MAX_AMOUNT}, not {format_value(value)}: "
            "leave it out for flexible resources"
        )


def check_gpus(value: object) -> None:
    """Refuse what cannot be a number of GPUs; the server refuses 0 as well.

    Raises:
        InvalidRequest: it is no such number.
    """
    if value is not None and not _is_whole(value, MAX_AMOUNT):
        raise InvalidRequest(
            f"gpus must be a whole number from 1 to {MAX_AMOUNT}, not {format_value(value)}: "
            "leave it out for none"
        )


def check_replicas(value: object, kind: SessionKind) -> None:
    """Refuse a number of replicas that is none, too large, or not for this kind.

    Raises:
        InvalidRequest: with the number that would do.
    """
    if not _is_whole(value, MAX_REPLICAS):
        raise InvalidRequest(
            f"replicas must be a whole number from 1 to {MAX_REPLICAS}, not {format_value(value)}: "
            "for more than that, use several calls"
        )
    if value != 1 and kind in {SessionKind.DESKTOP, SessionKind.FIREFLY}:
        raise InvalidRequest(f"replicas must be 1 for {kind} sessions, not {format_value(value)}")


def check_cmd(value: object) -> None:
    """Refuse a command that is not one plain word: the server runs it unsplit, without a shell.

    Raises:
        InvalidRequest: with where the rest belongs.
    """
    if value is None:
        return
    if not isinstance(value, str) or not value:
        raise InvalidRequest(
            f"cmd must be a program's name, not {format_value(value)}: or leave it out"
        )
    if any(character.isspace() for character in value):
        raise InvalidRequest(f"cmd {format_value(value)} must be one word: put the rest into args")
    _check_text("cmd", value, "put the command into a script in the image, or into your storage")


def split_args(value: str | Iterable[str] | None) -> tuple[str, ...]:
    """Return the arguments of a command one by one.

    Args:
        value: None, a string that is split on single spaces as the server does it, without any
            quoting; or the arguments themselves.

    Raises:
        InvalidRequest: an argument would not arrive as it is written.
    """
    if value is None:
        return ()
    if isinstance(value, str):
        _check_unquoted(value)
        value = value.split(" ")
    if not isinstance(value, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance] # users' input
        raise InvalidRequest(
            f"args must be a string or a list of strings, not {format_value(value)}"
        )
    return tuple(_check_argument(argument) for argument in value)


_REPLICA = frozenset({"REPLICA_ID", "REPLICA_COUNT"})


def check_env(value: Mapping[str, str] | None) -> dict[str, str]:
    """Return a copy of the environment variables, if each would arrive as it is written.

    The server splits each ``KEY=VALUE`` on ``=`` and silently drops it unless there are exactly
    two parts, so a value can neither be empty nor have that character in it.

    Raises:
        InvalidRequest: with the variable's name, never with its value, which may be a secret.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] # users' input
        raise InvalidRequest(
            f"env must be a mapping of names to values, not {type(value).__name__}"
        )
    env = dict(value)
    for key, setting in env.items():
        _check_variable(key, setting)
        if key in _REPLICA:
            raise InvalidRequest(f"env must not set {key}: each replica gets its own; drop it")
    return env


def _find_member(vocabulary: type[EnumT], value: str) -> EnumT | None:
    """Return the member of that name, unless nobody has heard of it here."""
    try:
        member = vocabulary(value)
    except ValueError:
        return None
    return member if member.is_known else None


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def _check_variable(key: object, setting: object) -> None:
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise InvalidRequest(
            f"env name {format_value(key)} is no variable's name: use letters, digits and '_', "
            "and no digit first"
        )
    what = f"env[{format_value(key)}]"
    if not isinstance(setting, str):
        kind = type(setting).__name__
        raise InvalidRequest(f"{what} must be a string, not {kind}: use str(...)")
    if not setting:
        raise InvalidRequest(f"{what} is empty, and the server would drop it: leave it out")
    if "=" in setting:
        raise InvalidRequest(f"{what} has '=', and the server would drop it: {_WORKAROUND}")
    _check_text(what, setting, _WORKAROUND)


def _check_unquoted(args: str) -> None:
    if not args:
        raise InvalidRequest(
            "args is empty, and the server would make an argument of it: leave it out"
        )
    if "'" in args:
        raise InvalidRequest(
            f"args {format_value(args)} has a quote, and the server splits on spaces whatever is quoted: "
            "give a list of arguments, each without spaces"
        )
    if "  " in args or args != args.strip(" "):
        raise InvalidRequest(
            f"args {format_value(args)} has a space too many, and the server would make an empty argument "
            "of it: put one space between arguments"
        )


def _check_argument(argument: object) -> str:
    if not isinstance(argument, str):
        raise InvalidRequest(f"args must be strings, not {format_value(argument)}: use str(...)")
    if not argument:
        raise InvalidRequest("args has an empty argument, which cannot be sent: leave it out")
    if " " in argument:
        raise InvalidRequest(
            f"args has {format_value(argument)}, and the server would split it at its spaces: "
            "put it into env as URL-safe base64, or into a file"
        )
    _check_text("args", argument, "put it into env as URL-safe base64, or into a file")
    return argument


def _check_text(what: str, value: str, way_out: str) -> None:
    """Refuse text that would not arrive as it is; the message tells one character, not the text."""
    unsafe = _UNSAFE.search(value)
    if unsafe is not None:
        raise InvalidRequest(
            f"{what} has {unsafe[0]!r}, which would not reach the container as it is: {way_out}"
        )
