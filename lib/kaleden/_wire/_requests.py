"""Request builders: one function per request of the Skaha API, without the host.

Ids are validated, so that no id can change the path. The parameters of a POST are a form body,
never a query string: the server accepts more of them that way, and does not log them.
"""

from __future__ import annotations

import base64
from urllib.parse import urlencode

from attrs import evolve, field, frozen

from kaleden._errors import InvalidRequest
from kaleden._wire._spec import Launch
from kaleden._wire._validation import (
    check_id,
    check_kind,
    check_status,
    format_value,
)

FORM_TYPE = "application/x-www-form-urlencoded"
"""Content type of form bodies; the server ignores parameters sent with any other type."""

TEXT = "text/plain"
XML = "text/xml, application/xml"

MAX_FORM = 2 * 2**20
"""Maximum size of a form body, in bytes, that the server's servlet container reads."""

Headers = tuple[tuple[str, str], ...]
Pairs = list[tuple[str, str]]


@frozen
class Request:
    """One HTTP request, relative to the URL of a service.

    Attributes:
        method: ``GET``, ``POST`` or ``DELETE``.
        target: path and query, quoted, without a leading slash.
        form: urlencoded form body, to be sent as `FORM_TYPE`; empty for no body. It may contain
            secrets, so the repr leaves it out.
        versioned: True if *target* is relative to the versioned root (``…/skaha/v1``), False if it
            is relative to the service (``…/skaha``).
        accept: the ``Accept`` header.
        headers: further headers. They may contain secrets, so the repr leaves them out.
        max_body: bytes of the body of the response, at most; None for what the transport takes.
        keep_last: whether the last bytes of a longer body are kept; otherwise it is refused.
    """

    method: str
    target: str
    form: bytes = field(default=b"", repr=False)
    versioned: bool = True
    accept: str = "application/json"
    headers: Headers = field(default=(), repr=False)
    max_body: int | None = None
    keep_last: bool = False


def build_list(
    kind: str | None = None, status: str | None = None, view: str | None = None
) -> Request:
    """List sessions.

    Args:
        kind: list only sessions of this kind.
        status: list only sessions with this status.
        view: None for the user's own sessions; ``"all"`` for the sessions of all users, with few
            fields; ``"interactive"`` for sessions that are not headless.

    Raises:
        InvalidRequest: a filter is unknown, or the server would ignore it.
    """
    if view not in (None, "all", "interactive"):  # A tuple, since *view* may be unhashable.
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
    """Get one session."""
    return Request("GET", _build_session_path(session_id))


def build_logs(session_id: str, max_body: int | None = None) -> Request:
    """Get the output of a session so far; if it is too long, its last bytes."""
    request = _build_get(_build_session_path(session_id), TEXT, view="logs")
    return evolve(request, max_body=max_body, keep_last=True)


def build_events(session_id: str) -> Request:
    """Get the Kubernetes events of a session."""
    return _build_get(_build_session_path(session_id), TEXT, view="events")


def build_renew(session_id: str) -> Request:
    """Extend the lifetime of a session."""
    return _build_post(_build_session_path(session_id), _build_pairs(action="renew"))


def build_destroy(session_id: str) -> Request:
    """Delete a session. Servers since 1.0 respond with 200 to any id."""
    return Request("DELETE", _build_session_path(session_id), accept=TEXT)


def build_create(launch: Launch, *, headers: Headers = ()) -> Request:
    """Create one session.

    Args:
        launch: the session to create, from `SessionSpec.launches`.
        headers: further headers, for example from `build_registry_header`.

    Raises:
        InvalidRequest: the form body is larger than `MAX_FORM`.
    """
    spec = launch.spec
    pairs = _build_pairs(
        name=launch.name,
        image=spec.image,
        type=spec.kind.value,
        cores=spec.cores,
        ram=spec.ram,
        gpus=spec.gpus,
        cmd=spec.cmd,
        # The server would read an empty "args" as one empty argument.
        args=" ".join(spec.args) or None,
    )
    pairs += [("env", f"{key}={value}") for key, value in launch.env.items()]
    return _build_post("session", pairs, headers)


def build_stats() -> Request:
    """Get the platform's resources."""
    return _build_get("session", view="stats")


def build_images(kind: str | None = None) -> Request:
    """List the images that sessions can run.

    Args:
        kind: list only images that support this kind of session.

    Raises:
        InvalidRequest: the kind is unknown.
    """
    return _build_get("image", type=None if kind is None else check_kind(kind).value)


def build_context() -> Request:
    """Get the resources that sessions may request."""
    return _build_get("context")


def build_repositories() -> Request:
    """List the hosts of the registries that images may come from."""
    return _build_get("repository")


def build_availability() -> Request:
    """Get the service's availability; needs no credentials."""
    return Request("GET", "availability", versioned=False, accept=XML)


def build_apps(session_id: str) -> Request:
    """List the desktop apps. The server ignores the id and lists all apps of the user."""
    return _build_get(f"{_build_session_path(session_id)}/app")


def build_registry_header(username: str, secret: str) -> tuple[str, str]:
    """Return the header with the credentials of a private image registry, for a create request.

    Raises:
        InvalidRequest: an argument is empty or contains a colon, at which the server splits.
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


def _build_pairs(**given: str | float | None) -> Pairs:
    return [(key, _format_parameter(value)) for key, value in given.items() if value is not None]


def _format_parameter(value: str | float) -> str:
    """Format a form parameter; 2.0 becomes ``2``, as some servers require whole cores."""
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
