"""What the server tells, as frozen attrs models.

Sizes are bytes, cores are floats, times are aware. A value that the server left out, or that could
not be read, is None; `raw`, where there is one, keeps what came.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from attrs import field, frozen

from kaleden._wire._enums import SessionKind, SessionStatus
from kaleden._wire._primitives import JsonObject, parse_json


@frozen
class SessionInfo:
    """One session, as listed or as asked for by its id: the server answers both alike.

    The times are absent while the session waits to start. The requested resources are told only
    if they are fixed, and those in use only if the server's metrics answer. The listing of
    everybody's sessions tells no more than user, kind, status and start time.

    Attributes:
        id: the session id, chosen by the server.
        name: the session name; not unique, lower case.
        kind: what the session is for.
        status: where it stands.
        user: whose it is.
        image: the container image it runs.
        start_time: when it started.
        expiry_time: when the server will end it.
        connect_url: where its page is; it embeds a secret, so no repr shows it.
        requested_ram: memory in bytes.
        ram_in_use: memory in bytes.
        requested_cores: CPU cores.
        cores_in_use: CPU cores.
        requested_gpus: number of GPUs.
        fixed_resources: False if the session may use more than it requested.
        uid: the user id that its processes run as.
        gid: the group id that its processes run as.
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
    # Of a reply about one session its bytes are kept: they take half the memory, and no time of the
    # garbage collector's.
    _raw: JsonObject | bytes = field(factory=dict[str, Any], alias="raw", repr=False, eq=False)

    @property
    def raw(self) -> dict[str, Any]:
        """The object that came, with the server's own keys; read anew at each use."""
        return parse_json(self._raw) if isinstance(self._raw, bytes) else self._raw


@frozen
class Listing:
    """Sessions, and apart from them what stood in the list and is no session.

    Attributes:
        sessions: the sessions, in the server's order.
        malformed: the other elements, as they came.
    """

    sessions: tuple[SessionInfo, ...] = ()
    malformed: tuple[Any, ...] = ()


@frozen
class Event:
    """One line of what Kubernetes tells of a session; the server keeps them for about an hour.

    Attributes:
        type: ``Normal`` or ``Warning``.
        reason: one word, such as ``Scheduled``.
        message: the sentence for people.
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
    """CPU cores of the platform; "available" is its capacity, not what is free.

    Attributes:
        requested: cores that sessions asked for.
        available: cores there are.
        largest: cores of the largest node.
        largest_ram: memory of that node, in bytes.
    """

    requested: float | None = None
    available: float | None = None
    largest: float | None = None
    largest_ram: int | None = None


@frozen
class RamStats:
    """Memory of the platform, in bytes; "available" is its capacity, not what is free.

    Attributes:
        requested: memory that sessions asked for.
        available: memory there is.
        largest: memory of the largest node.
        largest_cores: CPU cores of that node.
    """

    requested: int | None = None
    available: int | None = None
    largest: int | None = None
    largest_cores: float | None = None


@frozen
class GpuStats:
    """GPUs of the platform; only newer servers tell.

    Attributes:
        requested: GPUs that sessions asked for.
        available: GPUs there are.
        largest: GPUs of the node that has most.
    """

    requested: int | None = None
    available: int | None = None
    largest: int | None = None


@frozen
class InstanceStats:
    """Numbers of sessions; only older servers tell.

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
    """What the platform has and what is asked of it.

    Attributes:
        cores: CPU cores.
        ram: memory.
        gpu: GPUs, if the server tells.
        instances: numbers of sessions, if the server tells.
        raw: the object that came.
    """

    cores: CoreStats = CoreStats()
    ram: RamStats = RamStats()
    gpu: GpuStats | None = None
    instances: InstanceStats | None = None
    raw: dict[str, Any] = field(factory=dict[str, Any], repr=False, eq=False)


@frozen
class Image:
    """One container image that sessions can be made of.

    Attributes:
        id: the reference, ``host/project/name:tag``.
        kinds: what sessions it serves for.
        digest: ``sha256:…``, if the server tells.
        raw: the object that came.
    """

    id: str
    kinds: tuple[SessionKind, ...] = ()
    digest: str | None = None
    raw: dict[str, Any] = field(factory=dict[str, Any], repr=False, eq=False)

    @property
    def host(self) -> str:
        """The registry, or ``""`` if the reference names none."""
        return self.id.partition("/")[0] if "/" in self.id else ""

    @property
    def project(self) -> str:
        """What stands between the registry and the name; may have slashes."""
        return "/".join(self.id.split("/")[1:-1])

    @property
    def name(self) -> str:
        """The image's own name."""
        return self.id.rpartition("/")[2].partition("@")[0].partition(":")[0]

    @property
    def tag(self) -> str:
        """The version, or ``""`` if the reference names none."""
        return self.id.rpartition("/")[2].partition("@")[0].partition(":")[2]


@frozen
class Choices:
    """What may be asked of one resource, and what is given when nothing is asked.

    Attributes:
        default: given to a session with fixed resources.
        default_request: promised to a session with flexible resources.
        default_limit: the most that a session with flexible resources gets.
        default_headless: given to a headless session; only older servers tell.
        options: the values that may be asked for.
    """

    default: int | None = None
    default_request: int | None = None
    default_limit: int | None = None
    default_headless: int | None = None
    options: tuple[int, ...] = ()


@frozen
class ResourceOptions:
    """What sessions may ask for on this platform.

    Attributes:
        cores: CPU cores.
        memory: memory in bytes (a `SessionSpec` takes GiB: divide by ``2**30``).
        gpus: numbers of GPUs.
        max_interactive_sessions: how many interactive sessions a user may have, if told.
        raw: the object that came.
    """

    cores: Choices = Choices()
    memory: Choices = Choices()
    gpus: Choices = Choices()
    max_interactive_sessions: int | None = None
    raw: dict[str, Any] = field(factory=dict[str, Any], repr=False, eq=False)


@frozen
class Availability:
    """Whether the service is there, in its own words.

    Attributes:
        available: what it says.
        notes: what it adds.
    """

    available: bool
    notes: tuple[str, ...] = ()


@frozen
class Interface:
    """One way to reach a capability.

    Attributes:
        access_url: where.
        security_methods: identifiers of the ways to prove who one is; none means anonymous.
        role: ``std`` for the standard interface.
        version: of the interface.
    """

    access_url: str
    security_methods: tuple[str, ...] = ()
    role: str | None = None
    version: str | None = None


@frozen
class Capability:
    """One thing that the service can do.

    Attributes:
        standard_id: the identifier of what it is.
        interfaces: the ways to reach it.
    """

    standard_id: str
    interfaces: tuple[Interface, ...] = ()
