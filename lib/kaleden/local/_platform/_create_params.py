"""From the parameters of a create to a `Spec`, as the server reads them, mangling included.

The server puts cmd, args and env into a YAML text, inside double quotes, by way of Java's
``String.replaceAll``, and splits with Java's ``String.split``. What comes of that is done here.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable, Iterable

from attrs import define, field, frozen

from kaleden.local._platform._catalogue import REGISTRIES, Resources
from kaleden.local._platform._model import GIB, HTTPError, Kind, Spec, invalid

NAME = re.compile(r"[A-Za-z0-9\-]+")
_YAML_ESCAPE = re.compile(r"\\(x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|.)")
_YAML_LETTERS = {
    "\\": "\\",
    '"': '"',
    "/": "/",
    "n": "\n",
    "t": "\t",
    "r": "\r",
    "0": "\0",
    " ": " ",
}


class NotCreated(Exception):
    """Kubernetes takes no such job, which the server finds out when it reads the job back."""


@define
class Parameters:
    """The parameters of a request: names in any case, the first value wins, all are kept."""

    _values: dict[str, list[str]] = field(init=False, factory=dict[str, list[str]])

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, str]]) -> Parameters:
        """Collect name and value pairs."""
        parameters = cls()
        for name, value in pairs:
            parameters._values.setdefault(name.lower(), []).append(value)
        return parameters

    def get(self, name: str) -> str | None:
        """Return the first value, or None."""
        values = self._values.get(name)
        return values[0] if values else None

    def all(self, name: str) -> list[str]:
        """Return all values."""
        return self._values.get(name, [])


@frozen
class _Amount:
    """What is reserved of a resource, and what may be used: millicores or bytes."""

    request: int
    limit: int


def java_split(text: str, separator: str) -> list[str]:
    """Split as Java does: empty parts at the end are dropped, a text without parts is one."""
    parts = text.split(separator)
    while len(parts) > 1 and not parts[-1]:
        parts.pop()
    return parts if any(parts) or separator not in text else []


def substitute(text: str) -> str:
    r"""What is left of a text that served as a replacement in Java's ``replaceAll``.

    ``\c`` becomes ``c``. A ``$`` is a reference to a group of the pattern, which has none.

    Raises:
        HTTPError: 400 or 500, by the Java exception it provokes.
    """
    result: list[str] = []
    characters = iter(text)
    for character in characters:
        if character == "\\":
            escaped = next(characters, None)
            if escaped is None:
                raise invalid("character to be escaped is missing")
            result.append(escaped)
        elif character == "$":
            raise _illegal_reference(next(characters, None))
        else:
            result.append(character)
    return "".join(result)


def _illegal_reference(follower: str | None) -> HTTPError:
    if follower is None:
        return invalid("Illegal group reference: group index is missing")
    if follower.isascii() and follower.isdigit():
        error = f"java.lang.IndexOutOfBoundsException: No group {follower}"
        return HTTPError(500, f"unexpected exception: {error}")
    return invalid("Illegal group reference")


def unquote_yaml(text: str) -> str:
    """What YAML makes of a text between double quotes.

    Raises:
        NotCreated: the text ends the quotes, or has an escape that YAML does not know.
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


def _through_template(text: str) -> str:
    return unquote_yaml(substitute(text))


def read_command(parameters: Parameters) -> tuple[str, ...]:
    """Read ``cmd``, which stays one word, and ``args``, split at single spaces."""
    cmd, args = parameters.get("cmd"), parameters.get("args")
    words = [] if cmd is None else [cmd]
    words += [] if args is None else java_split(args, " ")
    return tuple(_through_template(word) for word in words)


def read_env(parameters: Parameters) -> tuple[tuple[str, str], ...]:
    """Read ``env``; a pair that "=" does not split in exactly two parts is silently dropped."""
    split = (java_split(pair, "=") for pair in parameters.all("env"))
    pairs = [(parts[0], _through_template(parts[1])) for parts in split if len(parts) == 2]
    if any(not name for name, _ in pairs):
        raise NotCreated
    return tuple(pairs)


def read_image(parameters: Parameters) -> str:
    """Read ``image``; it must come from one of the platform's registries."""
    image = parameters.get("image")
    if not image:
        raise invalid("Missing parameter 'image'")
    if image.partition("/")[0] not in REGISTRIES:
        hosts = ", ".join(REGISTRIES)
        raise invalid(f"session image '{image}' must come from one of [{hosts}]")
    return image


def read_kind(parameters: Parameters) -> Kind:
    """Read ``type``; without one, a session is headless."""
    text = parameters.get("type")
    if text is None:
        return Kind.HEADLESS
    try:
        return Kind(text)
    except ValueError:
        raise invalid(f"Invalid session type: {text}") from None


def read_name(parameters: Parameters) -> str:
    """Read ``name``: checked as the server does, and lower-cased."""
    name = parameters.get("name")
    if not name:
        raise invalid("Missing parameter 'name'")
    if not NAME.fullmatch(name):
        raise invalid("name can only contain alpha-numeric chars and '-'")
    if name.startswith("-"):
        raise invalid(f"Invalid label value: {name}")
    return name.lower()


def read_gpus(parameters: Parameters, resources: Resources) -> int:
    """Read ``gpus``: one of the context's options, so never 0."""
    text = parameters.get("gpus")
    if text is None:
        return 0
    if not text.isascii() or not text.isdigit() or int(text) not in resources.gpu_options:
        raise invalid(f"Invalid value for 'gpus': {text}")
    return int(text)


def _read_amount(
    parameters: Parameters, name: str, options: Iterable[int], unit: int, default: _Amount
) -> _Amount:
    """Read a decimal number whose integer part must be among the options."""
    text = parameters.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or int(value) not in options:
        raise invalid(f"Invalid value for '{name}': {text}")
    return _Amount(round(value * unit), round(value * unit))


def read_resources(parameters: Parameters, kind: Kind, offer: Resources) -> tuple[_Amount, _Amount]:
    """Read ``cores`` and ``ram``, or give the defaults; desktops and firefly have their own."""
    cores = _Amount(1000 * offer.default_cores, 1000 * offer.max_default_cores)
    ram = _Amount(GIB * offer.default_ram, GIB * offer.max_default_ram)
    cores = _read_amount(parameters, "cores", offer.core_options, 1000, cores)
    ram = _read_amount(parameters, "ram", offer.ram_options, GIB, ram)
    if kind is Kind.DESKTOP:
        return _Amount(250, 1000), _Amount(GIB, 4 * GIB)
    if kind is Kind.FIREFLY:
        return _Amount(100, 1000), _Amount(4 * GIB, 4 * GIB)
    return cores, ram


def read_spec(parameters: Parameters, offer: Resources, check_limit: Callable[[], None]) -> Spec:
    """Read all of a create, in the server's order.

    Args:
        parameters: as sent.
        offer: the resources that may be asked for.
        check_limit: called for interactive kinds, where the server looks at the user's limit.

    Raises:
        HTTPError: the server says no.
        NotCreated: the server says yes, and Kubernetes no.
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
    """Read what is asked of a desktop app; the server does not check its registry."""
    image = parameters.get("image")
    if not image:
        raise invalid("Missing parameter 'image'")
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
        HTTPError: it is anything else.
    """
    try:
        text = base64.b64decode(header, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        text = ""
    parts = java_split(text, ":")
    if len(parts) != 2:
        raise invalid("Invalid input. Must be in form of username:secret")
    return parts[0], parts[1]
