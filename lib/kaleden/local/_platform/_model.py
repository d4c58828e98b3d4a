"""The data types of the embedded platform: kinds, statuses, sessions, and orders to the runner.

`Platform` decides when sessions change.
"""

from __future__ import annotations

from enum import StrEnum

from attrs import define, field, frozen

GIB = 1024**3
HOUR = 3600.0
DAY = 24 * HOUR


class Kind(StrEnum):
    """The kinds of session that the server supports."""

    CARTA = "carta"
    CONTRIBUTED = "contributed"
    DESKTOP = "desktop"
    NOTEBOOK = "notebook"
    HEADLESS = "headless"
    DESKTOP_APP = "desktop-app"
    FIREFLY = "firefly"

    @property
    def interactive(self) -> bool:
        """Whether the session counts towards the user's limit and has its own page."""
        return self not in (Kind.HEADLESS, Kind.DESKTOP_APP)


class Status(StrEnum):
    """The status of a session that the server reports."""

    PENDING = "Pending"
    RUNNING = "Running"
    COMPLETED = "Completed"
    FAILED = "Failed"
    TERMINATING = "Terminating"


class Phase(StrEnum):
    """The phase of a session's life; more detailed than its `Status`."""

    QUEUED = "queued"
    """Suspended: it waits for capacity and has no pod."""
    UNSCHEDULED = "unscheduled"
    """It has a pod, which waits for capacity."""
    STARTING = "starting"
    """Capacity is reserved for it; its process is being started."""
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    EXPIRING = "expiring"
    """It is past its deadline; its process is being ended."""

    @property
    def waiting(self) -> bool:
        """Whether the session waits for capacity."""
        return self in (Phase.QUEUED, Phase.UNSCHEDULED)

    @property
    def finished(self) -> bool:
        """Whether the phase is final."""
        return self in (Phase.SUCCEEDED, Phase.FAILED)

    @property
    def holding(self) -> bool:
        """Whether the requested capacity is reserved for the session."""
        return self in (Phase.STARTING, Phase.RUNNING, Phase.EXPIRING)

    @property
    def active(self) -> bool:
        """Whether the job is active for the server: its pod exists and has not ended."""
        return self in (Phase.UNSCHEDULED, Phase.STARTING, Phase.RUNNING)


# The server tests the job in this order: active and ready, active, suspended, succeeded, failed,
# terminating. It reports Pending if none of these is true.
STATUS_OF = {
    Phase.RUNNING: Status.RUNNING,
    Phase.STARTING: Status.PENDING,
    Phase.UNSCHEDULED: Status.PENDING,
    Phase.QUEUED: Status.PENDING,
    Phase.SUCCEEDED: Status.COMPLETED,
    Phase.FAILED: Status.FAILED,
    Phase.EXPIRING: Status.TERMINATING,
}


@frozen
class Spec:
    """The specification of a session, after the server's rules were applied to the request.

    Args:
        kind: the kind of session.
        name: the session's name, in lower case.
        image: the image's full name, with its registry.
        millicores: the cores reserved for it, in thousandths.
        ram: the memory reserved for it, in bytes.
        max_millicores: the cores it may use, in thousandths.
        max_ram: the memory it may use, in bytes.
        fixed: whether the reserved memory equals the maximum.
        gpus: the number of GPUs requested.
        command: the program and its arguments; empty for the image's default command.
        env: pairs of a name and a value, in the order given.
    """

    kind: Kind
    name: str
    image: str
    millicores: int
    ram: int
    max_millicores: int
    max_ram: int
    fixed: bool = False
    gpus: int = 0
    command: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()


@frozen
class Event:
    """One event of a session. The times are seconds since the epoch."""

    type: str
    reason: str
    message: str
    first: float
    last: float


@define
class Session:
    """One session. All times are seconds since the epoch.

    Args:
        id: the session's id; for a desktop app, the id of its desktop.
        user: the owner.
        spec: the specification.
        created: when the session was created.
        lifetime: seconds from the start to the deadline.
        appid: the id of a desktop app; None for a session.
        phase: the current phase.
        started: when its pod was created; None while it waits in the queue.
        ended: when it finished, or None.
        events: the events so far, oldest first.
        ram_in_use: the memory in use at the last measurement, in bytes.
        cores_in_use: the cores in use at the last measurement.
    """

    id: str
    user: str
    spec: Spec
    created: float
    lifetime: float
    appid: str | None = None
    phase: Phase = Phase.QUEUED
    started: float | None = None
    ended: float | None = None
    events: list[Event] = field(factory=list[Event])
    ram_in_use: int | None = None
    cores_in_use: float | None = None

    @property
    def key(self) -> str:
        """The key on this platform: the id, or ``id/appid`` for a desktop app."""
        return self.id if self.appid is None else f"{self.id}/{self.appid}"

    @property
    def status(self) -> Status:
        """The status that the server reports."""
        return STATUS_OF[self.phase]

    @property
    def expires(self) -> float | None:
        """The deadline, when the session is ended; None while it waits in the queue."""
        return None if self.started is None else self.started + self.lifetime

    @property
    def has_pod(self) -> bool:
        """Whether the session has a pod, and therefore events."""
        return self.phase is not Phase.QUEUED

    def note(self, type_: str, reason: str, message: str, now: float) -> None:
        """Add an event at the time *now*."""
        self.events.append(Event(type_, reason, message, now, now))


@frozen(kw_only=True)
class Settings:
    """The capacity of a platform, its limits, and how long it keeps sessions.

    Args:
        millicores: capacity, in thousandths of a core.
        ram: capacity, in bytes. Both capacities are only counted: they do not limit the use of
            the machine.
        max_interactive_sessions: how many interactive sessions a user may have at a time.
        queue: where a session waits for capacity. True: in a queue, suspended; a request for its
            events returns 404. False: as a pod that cannot be scheduled, with an event that gives
            the reason.
        headless_lifetime: seconds after its start at which a headless session is ended.
        interactive_lifetime: the same for an interactive session, unless it is renewed.
        headless_kept: seconds after its end at which a headless session is forgotten.
        interactive_kept: the same for an interactive session.

    Raises:
        ValueError: the capacity is too small for the smallest session, 1 core and 1 GiB.
    """

    millicores: int
    ram: int
    max_interactive_sessions: int = 5
    queue: bool = True
    headless_lifetime: float = 14 * DAY
    interactive_lifetime: float = 4 * DAY
    headless_kept: float = HOUR
    interactive_kept: float = DAY

    def __attrs_post_init__(self) -> None:
        if self.millicores < 1000 or self.ram < GIB:
            raise ValueError("a platform needs at least 1 core and 1 GiB of memory")


@frozen
class Start:
    """Order: start this session's process."""

    session: Session


@frozen
class Stop:
    """Order: end all processes of this session, then call `Platform.ended`."""

    key: str


@frozen
class Forget:
    """Order: delete this session's files."""

    key: str


Order = Start | Stop | Forget


class HTTPError(Exception):
    """An error response of the platform: the HTTP status, and the text of the body."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
