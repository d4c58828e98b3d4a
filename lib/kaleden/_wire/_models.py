"""Models of the server's responses, as frozen attrs classes.

Sizes are in bytes, cores are floats, times are aware. A value that is missing in the response, or
that cannot be parsed, is None. `raw`, where a model has it, is the JSON object of the response.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from attrs import field, frozen

from kaleden._wire._enums import SessionKind, SessionStatus
from kaleden._wire._primitives import JsonObject, parse_json


@frozen
class SessionInfo:
    """One session, from a list or from a request for its id; the server sends the same object.

    The times are None while the session waits to start. The requested resources are present only
    if they are fixed, and the resources in use only if the server's metrics are available. The list
    of all users' sessions has only user, kind, status and start time.

    Attributes:
        id: the session id, chosen by the server.
        name: the session name; not unique, lower case.
        kind: the kind of session.
        status: the status of the session.
        user: the owner's user name.
        image: the container image it runs.
        start_time: when it started.
        expiry_time: when the server will end it.
        connect_url: the URL of its page; it contains a secret, so the repr leaves it out.
        requested_ram: memory in bytes.
        ram_in_use: memory in bytes.
        requested_cores: CPU cores.
        cores_in_use: CPU cores.
        requested_gpus: number of GPUs.
        fixed_resources: False if the session may use more than it requested.
        uid: the user id of its processes.
        gid: the group id of its processes.
        groups: supplemental group ids.
        app_id: id of a desktop app within its desktop.
    """

    id: str = ""
    name: str = ""
    kind: SessionKind = SessionKind.UNKNOWN
    status: SessionStatus = SessionStatus.UNKNOWN
    user: str = ""
    image: str = ""
    start_time: datetime | None = None
    expiry_time: datetime | None = None
    connect_url: str | None = field(default=None, repr=False)
    requested_ram: int | None = None
    ram_in_use: int | None = None
    requested_cores: float | None = None
    cores_in_use: float | None = None
    requested_gpus: int | None = None
    fixed_resources: bool | None = None
    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] = ()
    app_id: str | None = None
    # For a response about a single session, the bytes are stored and parsed on access: they take
    # half the memory, and the garbage collector does not traverse them.
    _raw: JsonObject | bytes = field(factory=dict[str, Any], alias="raw", repr=False, eq=False)

    @property
    def raw(self) -> dict[str, Any]:
        """The JSON object of the response, with the server's keys.

        If it is stored as bytes, each access parses them and returns a new object.
        """
        return parse_json(self._raw) if isinstance(self._raw, bytes) else self._raw


@frozen
class Listing:
    """The sessions of a list, and separately its elements that are not sessions.

    Attributes:
        sessions: the sessions, in the server's order.
        malformed: the other elements, unchanged.
    """

    sessions: tuple[SessionInfo, ...] = ()
    malformed: tuple[Any, ...] = ()


@frozen
class Event:
    """One Kubernetes event of a session; the server keeps events for about an hour.

    Attributes:
        type: ``Normal`` or ``Warning``.
        reason: a short identifier, such as ``Scheduled``.
        message: a human-readable description.
        first_time: when it happened first.
        last_time: when it happened last.
    """

    type: str
    reason: str
    message: str
    first_time: datetime | None = None
    last_time: datetime | None = None


@frozen
class CoreStats:
    """CPU cores of the platform.

    Attributes:
        requested: cores that sessions requested.
        available: the total number of cores, not the number of free ones.
        largest: cores of the largest node.
        largest_ram: memory of that node, in bytes.
    """

    requested: float | None = None
    available: float | None = None
    largest: float | None = None
    largest_ram: int | None = None


@frozen
class RamStats:
    """Memory of the platform, in bytes.

    Attributes:
        requested: memory that sessions requested.
        available: the total amount of memory, not the amount that is free.
        largest: memory of the largest node.
        largest_cores: CPU cores of that node.
    """

    requested: int | None = None
    available: int | None = None
    largest: int | None = None
    largest_cores: float | None = None


@frozen
class GpuStats:
    """GPUs of the platform; only newer servers report them.

    Attributes:
        requested: GPUs that sessions requested.
        available: the total number of GPUs.
        largest: GPUs of the node with the most GPUs.
    """

    requested: int | None = None
    available: int | None = None
    largest: int | None = None


@frozen
class InstanceStats:
    """Numbers of sessions; only older servers report them.

    Attributes:
        session: interactive sessions.
        desktop_app: apps within desktops.
        headless: batch sessions.
        total: all of them.
    """

    session: int | None = None
    desktop_app: int | None = None
    headless: int | None = None
    total: int | None = None


@frozen
class PlatformStats:
    """The platform's resources, and how much of them is requested.

    Attributes:
        cores: CPU cores.
        ram: memory.
        gpu: GPUs; None if the server does not report them.
        instances: numbers of sessions; None if the server does not report them.
        raw: the JSON object of the response.
    """

    cores: CoreStats = CoreStats()
    ram: RamStats = RamStats()
    gpu: GpuStats | None = None
    instances: InstanceStats | None = None
    raw: dict[str, Any] = field(factory=dict[str, Any], repr=False, eq=False)


@frozen
class Image:
    """A container image that sessions can run.

    Attributes:
        id: the reference, ``host/project/name:tag``.
        kinds: the kinds of session that it supports.
        digest: ``sha256:…``; None if the server does not report it.
        raw: the JSON object of the response.
    """

    id: str
    kinds: tuple[SessionKind, ...] = ()
    digest: str | None = None
    raw: dict[str, Any] = field(factory=dict[str, Any], repr=False, eq=False)

    @property
    def host(self) -> str:
        """The registry, or ``""`` if the reference has none."""
        return self.id.partition("/")[0] if "/" in self.id else ""

    @property
    def project(self) -> str:
        """The path between the registry and the name; may contain slashes."""
        return "/".join(self.id.split("/")[1:-1])

    @property
    def name(self) -> str:
        """The last component of the path, without tag and digest."""
        return self.id.rpartition("/")[2].partition("@")[0].partition(":")[0]

    @property
    def tag(self) -> str:
        """The tag, or ``""`` if the reference has none."""
        return self.id.rpartition("/")[2].partition("@")[0].partition(":")[2]


@frozen
class Choices:
    """The values that may be requested of one resource, and the defaults.

    Attributes:
        default: the default for a session with fixed resources.
        default_request: the guaranteed amount for a session with flexible resources.
        default_limit: the upper limit for a session with flexible resources.
        default_headless: the default for a headless session; only older servers report it.
        options: the values that may be requested.
    """

    default: int | None = None
    default_request: int | None = None
    default_limit: int | None = None
    default_headless: int | None = None
    options: tuple[int, ...] = ()


@frozen
class ResourceOptions:
    """The resources that sessions may request on this platform.

    Attributes:
        cores: CPU cores.
        memory: memory in bytes (a `SessionSpec` takes GiB: divide by ``2**30``).
        gpus: numbers of GPUs.
        max_interactive_sessions: the limit on a user's interactive sessions; None if the server
            does not report it.
        raw: the JSON object of the response.
    """

    cores: Choices = Choices()
    memory: Choices = Choices()
    gpus: Choices = Choices()
    max_interactive_sessions: int | None = None
    raw: dict[str, Any] = field(factory=dict[str, Any], repr=False, eq=False)


@frozen
class Availability:
    """The service's VOSI availability report.

    Attributes:
        available: whether the service reports itself as available.
        notes: the notes in the report.
    """

    available: bool
    notes: tuple[str, ...] = ()
