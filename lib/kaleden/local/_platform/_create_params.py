"""Parsing of a create request's parameters into a `Spec`, with the server's alterations.

The server inserts cmd, args and env into a YAML template, inside double quotes, with Java's
``String.replaceAll``, and splits them with Java's ``String.split``. This module does the same, so
that values are altered or rejected as on the server.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable, Iterable

from attrs import define, field, frozen

from kaleden.local._platform._catalogue import REGISTRIES, Resources
from kaleden.local._platform._model import GIB, HTTPError, Kind, Spec

NAME = re.compile(r"[A-Za-z0-9\-]+")
_YAML_ESCAPE = re.compile(r"\\(x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|.)")
_YAML_LETTERS = {c: c for c in '\\"/ '} | {"n": "\n", "t": "\t", "r": "\r", "0": "\0"}


class NotCreated(Exception):
    """Kubernetes did not create the job; the server notices when it reads the job back."""


@define
class Parameters:
    """The parameters of a request, with case-insensitive names and all values of each name."""

    _values: dict[str, list[str]] = field(init=False, factory=dict[str, list[str]])

    @classmethod
    def from_pairs(cls, pairs: Iterable[tuple[str, str]]) -> Parameters:
        """Collect pairs of a name and a value."""
        parameters = cls()
        for name, value in pairs:
            parameters._values.setdefault(name.lower(), []).append(value)
        return parameters

    def get(self, name: str) -> str | None:
        """Return the first value of the parameter, or None."""
        values = self._values.get(name)
        return values[0] if values else None

    def get_all(self, name: str) -> list[str]:
        """Return all values of the parameter."""
        return self._values.get(name, [])


@frozen
class _RequestAndLimit:
    """The reserved amount and the maximum of one resource, in millicores or bytes."""

    request: int
    limit: int


def split_like_java(text: str, separator: str) -> list[str]:
    """Split as Java does: drop empty parts at the end, but keep a text without separator."""
    parts = text.split(separator)
    while len(parts) > 1 and not parts[-1]:
        parts.pop()
    return parts if any(parts) or separator not in text else []


def expand_java_replacement(text: str) -> str:
    r"""Return the text that Java's ``replaceAll`` inserts for this replacement.

    ``\c`` becomes ``c``. A ``$`` is a reference to a group of the pattern, which has none.

    Raises:
        HTTPError: 400 or 500, depending on the Java exception that the text causes.
    """
    result: list[str] = []
    characters = iter(text)
    for character in characters:
        if character == "\\":
            escaped = next(characters, None)
            if escaped is None:
                raise HTTPError(400, "character to be escaped is missing")
            result.append(escaped)
        elif character == "$":
            raise _make_reference_error(next(characters, None))
        else:
            result.append(character)
    return "".join(result)


def _make_reference_error(next_character: str | None) -> HTTPError:
    if next_character is None:
        return HTTPError(400, "Illegal group reference: group index is missing")
    if next_character.isascii() and next_character.isdigit():
        error = f"java.lang.IndexOutOfBoundsException: No group {next_character}"
        return HTTPError(500, f"unexpected exception: {error}")
    return HTTPError(400, "Illegal group reference")


def unquote_yaml(text: str) -> str:
    """Parse the content of a double-quoted YAML string.

    Raises:
        NotCreated: the text ends the string, or has an escape that YAML does not define.
    """
    if re.search(r'(?<!\\)(\\\\)*"', text) or "\n" in text:
        raise NotCreated
    return _YAML_ESCAPE.sub(_unescape, text)


def _unescape(match: re.Match[str]) -> str:
    escape = match[1]
    if len(escape) > 1:
        return chr(int(escape[1:], 16))
    if escape not in _YAML_LETTERS:
        raise NotCreated
    return _YAML_LETTERS[escape]


def _apply_template(text: str) -> str:
    return unquote_yaml(expand_java_replacement(text))


def read_command(parameters: Parameters) -> tuple[str, ...]:
    """Read ``cmd`` as one argument, and ``args``, split at single spaces."""
    cmd, args = parameters.get("cmd"), parameters.get("args")
    arguments = [] if cmd is None else [cmd]
    arguments += [] if args is None else split_like_java(args, " ")
    return tuple(_apply_template(argument) for argument in arguments)


def read_env(parameters: Parameters) -> tuple[tuple[str, str], ...]:
    """Read ``env``. Drop a pair silently unless "=" splits it into exactly two parts."""
    split = (split_like_java(pair, "=") for pair in parameters.get_all("env"))
    pairs = [(parts[0], _apply_template(parts[1])) for parts in split if len(parts) == 2]
    if any(not name for name, _ in pairs):
        raise NotCreated
    return tuple(pairs)


def read_image(parameters: Parameters) -> str:
    """Read ``image``, which must come from one of the platform's registries."""
    image = parameters.get("image")
    if not image:
        raise HTTPError(400, "Missing parameter 'image'")
    if image.partition("/")[0] not in REGISTRIES:
        hosts = ", ".join(REGISTRIES)
        raise HTTPError(400, f"session image '{image}' must come from one of [{hosts}]")
    return image


def read_kind(parameters: Parameters) -> Kind:
    """Read ``type``; the default is headless."""
    text = parameters.get("type")
    if text is None:
        return Kind.HEADLESS
    try:
        return Kind(text)
    except ValueError:
        raise HTTPError(400, f"Invalid session type: {text}") from None


def read_name(parameters: Parameters) -> str:
    """Read ``name``: check it as the server does, and lower-case it."""
    name = parameters.get("name")
    if not name:
        raise HTTPError(400, "Missing parameter 'name'")
    if not NAME.fullmatch(name):
        raise HTTPError(400, "name can only contain alpha-numeric chars and '-'")
    if name.startswith("-"):
        raise HTTPError(400, f"Invalid label value: {name}")
    return name.lower()


def read_gpus(parameters: Parameters, resources: Resources) -> int:
    """Read ``gpus``: one of the options in ``/context``, so never 0."""
    text = parameters.get("gpus")
    if text is None:
        return 0
    if not text.isascii() or not text.isdigit() or int(text) not in resources.gpu_options:
        raise HTTPError(400, f"Invalid value for 'gpus': {text}")
    return int(text)


def _read_amount(
    parameters: Parameters, name: str, options: Iterable[int], unit: int, default: _RequestAndLimit
) -> _RequestAndLimit:
    """Read a decimal number. Its integer part must be one of the options."""
    text = parameters.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or int(value) not in options:
        raise HTTPError(400, f"Invalid value for '{name}': {text}")
    return _RequestAndLimit(round(value * unit), round(value * unit))


def read_resources(
    parameters: Parameters, kind: Kind, offer: Resources
) -> tuple[_RequestAndLimit, _RequestAndLimit]:
    """Read ``cores`` and ``ram``, or use the defaults. Desktop and Firefly ignore both."""
    cores = _RequestAndLimit(1000 * offer.default_cores, 1000 * offer.max_default_cores)
    ram = _RequestAndLimit(GIB * offer.default_ram, GIB * offer.max_default_ram)
    cores = _read_amount(parameters, "cores", offer.core_options, 1000, cores)
    ram = _read_amount(parameters, "ram", offer.ram_options, GIB, ram)
    if kind is Kind.DESKTOP:
        return _RequestAndLimit(250, 1000), _RequestAndLimit(GIB, 4 * GIB)
    if kind is Kind.FIREFLY:
        return _RequestAndLimit(100, 1000), _RequestAndLimit(4 * GIB, 4 * GIB)
    return cores, ram


def read_spec(parameters: Parameters, offer: Resources, check_limit: Callable[[], None]) -> Spec:
    """Read the parameters of a create request, in the server's order.

    Args:
        parameters: the parameters of the request.
        offer: the resources that can be requested.
        check_limit: called for interactive kinds, when the server checks the user's limit.

    Raises:
        HTTPError: the server rejects the request.
        NotCreated: the server accepts the request, but Kubernetes rejects the job.
    """
    image = read_image(parameters)
    kind = read_kind(parameters)
    cores, ram = read_resources(parameters, kind, offer)
    name = read_name(parameters)
    if kind.interactive:
        check_limit()
    gpus = read_gpus(parameters, offer)
    if kind is Kind.DESKTOP_APP:
        error = "java.lang.IllegalArgumentException: no template for desktop-app"
        raise HTTPError(500, f"unexpected exception: {error}")

    headless = kind is Kind.HEADLESS
    command = read_command(parameters) if headless else ()
    env = read_env(parameters) if headless else ()
    if name.endswith("-") or len(name) > 63:
        raise NotCreated
    return Spec(
        kind=kind,
        name=name,
        image=image,
        millicores=cores.request,
        ram=ram.request,
        max_millicores=cores.limit,
        max_ram=ram.limit,
        fixed=ram.request == ram.limit,
        gpus=gpus,
        command=command,
        env=env,
    )


def read_app_spec(parameters: Parameters, offer: Resources) -> Spec:
    """Read the parameters of a desktop app. The server does not check its registry."""
    image = parameters.get("image")
    if not image:
        raise HTTPError(400, "Missing parameter 'image'")
    cores, ram = read_resources(parameters, Kind.DESKTOP_APP, offer)
    name = re.sub(r"[^a-z0-9-]+", "-", image.rpartition("/")[2].partition(":")[0].lower())
    return Spec(
        kind=Kind.DESKTOP_APP,
        name=name,
        image=image,
        millicores=cores.request,
        ram=ram.request,
        max_millicores=cores.limit,
        max_ram=ram.limit,
        fixed=ram.request == ram.limit,
    )


def read_registry_login(header: str) -> tuple[str, str]:
    """Read the header ``x-skaha-registry-auth``: base64 of a user, ":", and a secret without ":".

    Raises:
        HTTPError: 400, the header has another form.
    """
    try:
        text = base64.b64decode(header, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        text = ""
    parts = split_like_java(text, ":")
    if len(parts) != 2:
        raise HTTPError(400, "Invalid input. Must be in form of username:secret")
    return parts[0], parts[1]
