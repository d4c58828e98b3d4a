r"""Validation of arguments before a request is sent.

The checks refuse values that the server would drop, change or fail on. The server inserts ``cmd``,
``args`` and ``env`` into double-quoted YAML, and then applies a replacement in which ``$`` and
``\`` are special. A text with these characters, with ``"`` or with control characters would
therefore not reach the container unchanged. Each check raises `InvalidRequest` for a value that it
refuses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeGuard, TypeVar

from kaleden._errors import InvalidRequest
from kaleden._wire._enums import OpenEnum, SessionKind, SessionStatus

MAX_NAME = 63
"""Maximum length of a session name, replica suffix included: it becomes a host name label."""

IMAGE_HOST = "images.canfar.net"
"""The default registry of image references."""

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
# The server stores the id as the value of a Kubernetes label, which has this syntax.
_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?")
_PATH_PART = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*")
_VERSION = re.compile(r"(?::\w[\w.-]{0,127})?(?:@[a-z0-9]+:[0-9a-f]{32,128})?", re.ASCII)


def format_value(value: object, limit: int = 60) -> str:
    """Format a value for an error message, cut to *limit* characters. Never raises."""
    try:
        quoted = repr(value[: limit + 1]) if isinstance(value, str | bytes) else repr(value)
    except Exception:  # noqa: BLE001  # a foreign repr may raise anything; long ints: ValueError
        quoted = f"<{type(value).__name__}>"
    return quoted if len(quoted) <= limit + 2 else f"{quoted[:limit]}…"


def check_id(value: object) -> str:
    """Return *value* if it has the syntax of a session id."""
    if isinstance(value, str) and _ID.fullmatch(value):
        return value
    raise InvalidRequest(
        f"session id {format_value(value)} cannot be one: an id is 1 to 63 letters and digits "
        "(with '-', '_' or '.' between them); use one that create or fetch returned"
    )


def check_name(value: object) -> str:
    """Return *value* if the server accepts it as a session name without changing it.

    The server converts names to lower case, so a name with capitals would be changed. It also uses
    them as host names, so a hyphen cannot be first or last.

    Raises:
        InvalidRequest: the name is invalid; the message suggests a valid one where possible.
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
    """Format the name of one replica; ``-N`` is appended only if there are several."""
    return name if replicas == 1 else f"{name}-{replica}"


def complete_image(reference: str, host: str = IMAGE_HOST) -> str:
    """Return an image reference with a registry host and a tag.

    Args:
        reference: ``project/name``, optionally with ``host/`` before it, and a tag ``:tag`` or a
            digest ``@sha256:…`` after it. The first part is a host if it contains a dot or a colon,
            or is ``localhost``.
        host: the registry if the reference has none.

    Returns:
        The reference, with *host* and ``:latest`` for missing parts.
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
    valid = re.sub(r"[\W_]+", "-", name.lower(), flags=re.ASCII).strip("-")
    return f": use {valid!r}" if valid else ""


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
        f"image {format_value(reference)} is not an image reference: {why}; "
        "write 'project/name:tag' or 'host/project/name:tag'"
    )


EnumT = TypeVar("EnumT", bound=OpenEnum)

MAX_REPLICAS = 10_000
"""Maximum number of replicas of one spec. The server has no limit; this one catches typing errors.
"""

MAX_AMOUNT = 1_000_000
"""Maximum number of cores, GiB or GPUs of one session. The limits of a server are in its
`ResourceOptions`."""

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WORKAROUND = "send it as URL-safe base64 without padding, and decode it in the container"
# Non-ASCII characters are unsafe too: their encoding depends on the locale of the server's host.
_UNSAFE = re.compile(r'[$"\\]|[^ -~]')


def check_kind(value: str) -> SessionKind:
    """Return *value* as a kind.

    An unknown kind is accepted only as a `SessionKind`. A misspelt string is therefore refused,
    while a kind that a newer server introduces can still be used.
    """
    known = [kind for kind in SessionKind if kind is not SessionKind.UNKNOWN]
    return _check_member("kind", value, SessionKind, known)


def check_status(value: str) -> SessionStatus:
    """Return *value* as a status. An unknown status is accepted only as a `SessionStatus`."""
    return _check_member("status", value, SessionStatus, list(SessionStatus))


def check_launchable(kind: SessionKind) -> None:
    """Refuse the kinds of session that a create request cannot launch."""
    if kind is SessionKind.DESKTOP_APP:
        raise InvalidRequest(
            "kind 'desktop-app' is launched through its desktop: create it with the desktop's id"
        )
    if kind is SessionKind.UNKNOWN:
        raise InvalidRequest("kind 'unknown' cannot be launched: name the kind")


def check_cores(value: object) -> None:
    """Check a number of CPU cores; the server requires at least 1."""
    if value is not None and not (_is_number(value) and 1 <= value <= MAX_AMOUNT):
        raise InvalidRequest(
            f"cores must be a number from 1 to {MAX_AMOUNT}, not {format_value(value)}: "
            "leave it out for flexible resources"
        )


def check_ram(value: object) -> None:
    """Check a memory size in GiB."""
    if value is not None and not _is_whole(value, MAX_AMOUNT):
        raise InvalidRequest(
            f"ram must be a whole number of GiB from 1 to {MAX_AMOUNT}, not {format_value(value)}: "
            "leave it out for flexible resources"
        )


def check_gpus(value: object) -> None:
    """Check a number of GPUs; the server refuses 0 as well."""
    if value is not None and not _is_whole(value, MAX_AMOUNT):
        raise InvalidRequest(
            f"gpus must be a whole number from 1 to {MAX_AMOUNT}, not {format_value(value)}: "
            "leave it out for none"
        )


def check_replicas(value: object, kind: SessionKind) -> None:
    """Check a number of replicas.

    Raises:
        InvalidRequest: *value* is not a valid number, or too large, or not possible for *kind*. The
            message has the valid numbers.
    """
    if not _is_whole(value, MAX_REPLICAS):
        raise InvalidRequest(
            f"replicas must be a whole number from 1 to {MAX_REPLICAS}, not {format_value(value)}: "
            "for more than that, use several calls"
        )
    if value != 1 and kind in {SessionKind.DESKTOP, SessionKind.FIREFLY}:
        raise InvalidRequest(f"replicas must be 1 for {kind} sessions, not {format_value(value)}")


def check_cmd(value: object) -> None:
    """Check a command: one word, because the server does not split it and uses no shell.

    Raises:
        InvalidRequest: the command is invalid; the message has the alternative.
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
    """Return the arguments of a command as a tuple.

    Args:
        value: None; or a string, which is split at single spaces without any quoting, as the server
            does; or the arguments.
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
    """Return a copy of the environment variables.

    The server splits each ``KEY=VALUE`` at ``=`` and silently drops it unless there are exactly two
    parts. A value can therefore neither be empty nor contain that character.

    Raises:
        InvalidRequest: a variable would not reach the container unchanged. The message has its
            name, but not its value, which may be a secret.
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


def _check_member(label: str, value: str, vocabulary: type[EnumT], known: Sequence[EnumT]) -> EnumT:
    if isinstance(value, vocabulary):
        return value
    try:
        member = vocabulary(value)
    except ValueError:
        member = None
    if member is None or member not in known:
        raise InvalidRequest(
            f"{label} {format_value(value)} is not known: use one of {', '.join(known)} "
            f"(or kaleden.{vocabulary.__name__}(...) for one that only your server knows)"
        )
    return member


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def _check_variable(key: object, setting: object) -> None:
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise InvalidRequest(
            f"env name {format_value(key)} is not a variable name: use letters, digits and '_', "
            "and no digit first"
        )
    label = f"env[{format_value(key)}]"
    if not isinstance(setting, str):
        kind = type(setting).__name__
        raise InvalidRequest(f"{label} must be a string, not {kind}: use str(...)")
    if not setting:
        raise InvalidRequest(f"{label} is empty, and the server would drop it: leave it out")
    if "=" in setting:
        raise InvalidRequest(f"{label} has '=', and the server would drop it: {_WORKAROUND}")
    _check_text(label, setting, _WORKAROUND)


def _check_unquoted(args: str) -> None:
    if not args:
        raise InvalidRequest(
            "args is empty, and the server would make an argument of it: leave it out"
        )
    if "'" in args:
        raise InvalidRequest(
            f"args {format_value(args)} has a quote, and the server splits on spaces even inside "
            "quotes: give a list of arguments, each without spaces"
        )
    if "  " in args or args != args.strip(" "):
        raise InvalidRequest(
            f"args {format_value(args)} has a space too many, and the server would make an empty "
            "argument of it: put one space between arguments"
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


def _check_text(label: str, value: str, remedy: str) -> None:
    """Refuse text that would not reach the container unchanged.

    The message contains the unsafe character, but not the text, which may be a secret.
    """
    unsafe = _UNSAFE.search(value)
    if unsafe is not None:
        raise InvalidRequest(
            f"{label} has {unsafe[0]!r}, which would not reach the container as it is: {remedy}"
        )
