"""Builders: one function per request of the Skaha API, before it knows any host.

Ids are checked and quoted, so that no id can change the path. Parameters of a POST are a form body
and never a query string: the server takes more of them so, and its logs do not show them.
"""

from __future__ import annotations

import base64
from urllib.parse import urlencode

from attrs import field, frozen

from kaleden._errors import InvalidRequest
from kaleden._wire._spec import Launch
from kaleden._wire._validation import (
    check_cores,
    check_id,
    check_kind,
    check_ram,
    check_status,
    complete_image,
    format_value,
)

FORM_TYPE = "application/x-www-form-urlencoded"
"""Content type of every form body; the server ignores the parameters under any other."""

TEXT = "text/plain"
XML = "text/xml, application/xml"

MAX_FORM = 2 * 2**20
"""Longest form body, in bytes, that the server's container reads."""

Headers = tuple[tuple[str, str], ...]
Pairs = list[tuple[str, str]]


@frozen
class Request:
    """One HTTP request, relative to a service that is not known yet.

    Attributes:
        method: ``GET``, ``POST`` or ``DELETE``.
        target: path and query, quoted, without a leading slash.
        form: urlencoded form body, to be sent as `FORM_TYPE`; empty for no body. It may hold
            secrets, so no repr shows it.
        versioned: True if relative to the versioned root (``…/skaha/v1``), False if to the
            service itself (``…/skaha``).
        accept: the ``Accept`` header.
        headers: further headers; they may hold secrets, so no repr shows them.
    """

    method: str
    target: str
    form: bytes = field(default=b"", repr=False)
    versioned: bool = True
    accept: str = "application/json"
    headers: Headers = field(default=(), repr=False)


def build_list(
    kind: str | None = None, status: str | None = None, view: str | None = None
) -> Request:
    """List sessions.

    Args:
        kind: only these.
        status: only these.
        view: None for the user's own; ``"all"`` for everybody's, with few fields;
            ``"interactive"`` for those that are not headless.

    Raises:
        InvalidRequest: a filter is not known, or the server would ignore it.
    """
    if view not in (None, "all", "interactive"):  # it may be no hashable thing
        raise InvalidRequest(f"view must be 'all', 'interactive' or None, not {format_value(view)}")
    if view == "interactive" and kind is not None:
        raise InvalidRequest(
            "kind is ignored by the server with view='interactive': use one of them"
        )
    return _build_get(
        "session",
        type=None if kind is None else check_kind(kind).value,
        status=None if status is None else check_status(status).value,
        view=view,
    )


def build_info(session_id: str) -> Request:
    """Ask for one session."""
    return Request("GET", _build_session_path(session_id))


def build_logs(session_id: str) -> Request:
    """Ask for a session's output so far, all of it."""
    return _build_get(_build_session_path(session_id), TEXT, view="logs")


def build_events(session_id: str) -> Request:
    """Ask for what Kubernetes tells of a session."""
    return _build_get(_build_session_path(session_id), TEXT, view="events")


def build_renew(session_id: str) -> Request:
    """Push a session's expiry time back."""
    return _build_post(_build_session_path(session_id), _build_pairs(action="renew"))


def build_destroy(session_id: str) -> Request:
    """End a session. Servers since 1.0 answer 200 to whatever id."""
    return Request("DELETE", _build_session_path(session_id), accept=TEXT)


def build_create(launch: Launch, *, headers: Headers = ()) -> Request:
    """Create one session.

    Args:
        launch: what, from `SessionSpec.launches`.
        headers: further headers, such as `registry_header` gives.

    Raises:
        InvalidRequest: it is more than a server reads.
    """
    return _build_post("session", _build_create_pairs(launch), headers)


def build_stats() -> Request:
    """Ask for the platform's resources."""
    return _build_get("session", view="stats")


def build_images(kind: str | None = None) -> Request:
    """List the images that sessions can be made of.

    Args:
        kind: only those that serve for it.

    Raises:
        InvalidRequest: the kind is not known.
    """
    return _build_get("image", type=None if kind is None else check_kind(kind).value)


def build_context() -> Request:
    """Ask for the resources that a session may have."""
    return _build_get("context")


def build_repositories() -> Request:
    """List the hosts of the registries that images may come from."""
    return _build_get("repository")


def build_availability() -> Request:
    """Ask whether the service is there; needs no credentials."""
    return Request("GET", "availability", versioned=False, accept=XML)


def build_capabilities() -> Request:
    """Ask what the service can do, and where; needs no credentials."""
    return Request("GET", "capabilities", versioned=False, accept=XML)


def build_apps(session_id: str) -> Request:
    """List the desktop apps: all of the user's, because the server ignores the id."""
    return _build_get(f"{_build_session_path(session_id)}/app")


def build_app_info(session_id: str, app_id: str) -> Request:
    """Ask for one app of a desktop."""
    return _build_get(_build_app_path(session_id, app_id))


def build_app_create(
    session_id: str,
    image: str,
    cores: float | None = None,
    ram: int | None = None,
    *,
    headers: Headers = (),
) -> Request:
    """Start an app in a desktop.

    Args:
        session_id: the desktop's id.
        image: the app's image, as for `SessionSpec`.
        cores: CPU cores, 1 or more.
        ram: memory in GiB, a whole number.
        headers: further headers, such as `registry_header` gives.

    Raises:
        InvalidRequest: an argument cannot be what it should be.
    """
    check_cores(cores)
    check_ram(ram)
    pairs = _build_pairs(image=complete_image(image), cores=cores, ram=ram)
    return _build_post(f"{_build_session_path(session_id)}/app", pairs, headers)


def build_app_destroy(session_id: str, app_id: str) -> Request:
    """End an app of a desktop; the server answers 200 for an app that is not there."""
    return Request("DELETE", _build_app_path(session_id, app_id), accept=TEXT)


def build_registry_header(username: str, secret: str) -> tuple[str, str]:
    """Return the header that lets a create use an image of a private registry.

    Raises:
        InvalidRequest: one is empty or has a colon, at which the server splits.
    """
    if not username or not secret or ":" in username or ":" in secret:
        raise InvalidRequest(
            "registry username and secret must not be empty or have ':' in them, because the "
            "server splits there: ask the registry for another secret"
        )
    encoded = base64.b64encode(f"{username}:{secret}".encode()).decode("ascii")
    return "x-skaha-registry-auth", encoded


def _build_session_path(session_id: str) -> str:
    return f"session/{check_id(session_id)}"


def _build_app_path(session_id: str, app_id: str) -> str:
    return f"{_build_session_path(session_id)}/app/{check_id(app_id, 'app id')}"


def _build_create_pairs(launch: Launch) -> Pairs:
    spec = launch.spec
    pairs = _build_pairs(
        name=launch.name,
        image=spec.image,
        type=spec.kind.value,
        cores=spec.cores,
        ram=spec.ram,
        gpus=spec.gpus,
        cmd=spec.cmd,
        # An empty "args" would be one empty argument.
        args=" ".join(spec.args) or None,
    )
    return pairs + [("env", f"{key}={value}") for key, value in launch.env.items()]


def _build_pairs(**given: str | float | None) -> Pairs:
    return [(key, _format_parameter(value)) for key, value in given.items() if value is not None]


def _format_parameter(value: str | float) -> str:
    """Write 2.0 as ``2``, which servers that want whole cores take too."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _build_get(path: str, accept: str = "application/json", **query: str | None) -> Request:
    pairs = _build_pairs(**query)
    return Request("GET", f"{path}?{urlencode(pairs)}" if pairs else path, accept=accept)


def _build_post(path: str, pairs: Pairs, headers: Headers = ()) -> Request:
    form = urlencode(pairs).encode("ascii")
    if len(form) > MAX_FORM:
        raise InvalidRequest(
            f"args and env make a form of {len(form)} bytes, and the server reads {MAX_FORM}: "
            "put large data into files"
        )
    return Request("POST", path, form=form, accept=TEXT, headers=headers)
