"""The nouns of the embedded platform: kinds, statuses, sessions, and orders to the runner.

Plain data. What changes a session, and when, is `Platform`'s business.
"""

from __future__ import annotations

from enum import StrEnum

from attrs import define, field, frozen

GIB = 1024**3
HOUR = 3600.0
DAY = 24 * HOUR


class Kind(StrEnum):
    """The kinds of session that the server knows."""

    CARTA = "carta"
    CONTRIBUTED = "contributed"
    DESKTOP = "desktop"
    NOTEBOOK = "notebook"
    HEADLESS = "headless"
    DESKTOP_APP = "desktop-app"
    FIREFLY = "firefly"

    @property
    def interactive(self) -> bool:
        """Whether it counts towards the user's limit and has a page of its own."""
        return self not in (Kind.HEADLESS, Kind.DESKTOP_APP)


class Status(StrEnum):
    """What the server reports of a session."""

    PENDING = "Pending"
    RUNNING = "Running"
    COMPLETED = "Completed"
    FAILED = "Failed"
    TERMINATING = "Terminating"


class Phase(StrEnum):
    """Where a session is in its life; finer than its `Status`."""

    QUEUED = "queued"
    """Suspended: it waits for room and has no pod."""
    UNSCHEDULED = "unscheduled"
    """It has a pod, which waits for room."""
    STARTING = "starting"
    """It has room; its process is being started."""
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    EXPIRING = "expiring"
    """Past its deadline: its process is being ended."""

    @property
    def waiting(self) -> bool:
        """Whether it waits for room."""
        return self in (Phase.QUEUED, Phase.UNSCHEDULED)

    @property
    def finished(self) -> bool:
        """Whether it will not change any more."""
        return self in (Phase.SUCCEEDED, Phase.FAILED)

    @property
    def holding(self) -> bool:
        """Whether it holds the room it asked for."""
        return self in (Phase.STARTING, Phase.RUNNING, Phase.EXPIRING)

    @property
    def active(self) -> bool:
        """Whether the server sees an active job: one with a pod that has not ended."""
        return self in (Phase.UNSCHEDULED, Phase.STARTING, Phase.RUNNING)


# The server asks of the job, in this order: active and ready, active, suspended, succeeded,
# failed, terminating; and says Pending if nothing holds.
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
    """What was asked for, after the server's rules were applied to it.

    Args:
        millicores: the cores reserved for it, in thousandths.
        ram: the memory reserved for it, in bytes.
        max_millicores: the cores it may use.
        max_ram: the memory it may use, in bytes.
        fixed: whether the memory reserved is the memory it may use.
        command: what to run, as separate words; empty for the image's default.
        env: names and values, in the order given.
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
    """A line of a session's events; the times are seconds since the epoch."""

    type: str
    reason: str
    message: str
    first: float
    last: float


@define
class Session:
    """One session; all times are seconds since the epoch.

    Args:
        appid: set for a desktop app, whose ``id`` is its desktop's.
        lifetime: seconds from its start to its deadline.
        ram_in_use: bytes, as measured last.
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
        """Its key on this platform: the id, and for a desktop app the app's id behind it."""
        return self.id if self.appid is None else f"{self.id}/{self.appid}"

    @property
    def status(self) -> Status:
        """What the server says of it."""
        return STATUS_OF[self.phase]

    @property
    def expires(self) -> float | None:
        """When it is ended for having lived too long; None while it waits in the queue."""
        return None if self.started is None else self.started + self.lifetime

    @property
    def has_pod(self) -> bool:
        """Whether its events can be asked for."""
        return self.phase is not Phase.QUEUED

    def note(self, type_: str, reason: str, message: str, now: float) -> None:
        """Add to its events."""
        self.events.append(Event(type_, reason, message, now, now))


@frozen(kw_only=True)
class Settings:
    """What a platform can hold and how long it keeps things.

    Args:
        millicores: capacity, in thousandths of a core.
        ram: capacity, in bytes. Both are book-keeping: sessions may use what the machine has.
        max_interactive_sessions: interactive sessions that a user may have at a time.
        queue: where a session waits for room. True: in a queue, suspended, where it has no events
            (404). False: as a pod that cannot be scheduled, with an event that says why.
        headless_lifetime: seconds until a headless session is ended.
        interactive_lifetime: seconds until an interactive session is ended, unless renewed.
        headless_kept: seconds until a finished headless session is forgotten.
        interactive_kept: the same for interactive ones.

    Raises:
        ValueError: the capacity is below what the smallest session may ask for.
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
    """Order: end this session's processes, all of them, and report with `Platform.ended`."""

    key: str


@frozen
class Forget:
    """Order: delete this session's files."""

    key: str


Order = Start | Stop | Forget


class HTTPError(Exception):
    """The platform says no: an HTTP status and the text that tells why."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def invalid(text: str) -> HTTPError:
    """Refuse what was asked, with the server's words (HTTP 400)."""
    return HTTPError(400, text)
