"""Draw the pictures of the explanation pages: ``python docs/_tools/draw.py``.

The SVG files are committed beside the pages, so that a build of the documentation needs no drawing
library. `tests/docs/test_pictures.py` checks that they are up to date.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path

HERE = Path(__file__).parents[1] / "explanation" / "pictures"

INK, FAINT, LINE = "#1f2933", "#5b6770", "#8b98a5"
BLUE, GREEN, RED, GREY = "#dcebfb", "#dff3e4", "#fbe3e1", "#eef1f4"
EDGES = {BLUE: "#3b82c4", GREEN: "#3a9a5b", RED: "#c4554d", GREY: LINE}
FONT = "font-family='Helvetica, Arial, sans-serif'"


def text(
    x: float,
    y: float,
    lines: str | Iterable[str],
    *,
    size: float = 13,
    colour: str = INK,
    anchor: str = "start",
    weight: str = "normal",
    leading: float = 16,
    halo: bool = False,
) -> str:
    """Draw lines of text, the first with its baseline at *y*; a halo hides lines behind them."""
    lines = [lines] if isinstance(lines, str) else lines
    behind = " paint-order='stroke' stroke='#ffffff' stroke-width='4'" if halo else ""
    return "".join(
        f"<text x='{x:g}' y='{y + leading * number:g}' font-size='{size:g}' fill='{colour}' "
        f"text-anchor='{anchor}' font-weight='{weight}'{behind}>{escape(line)}</text>\n"
        for number, line in enumerate(lines)
    )


def box(x: float, y: float, width: float, height: float, fill: str, title: str, *lines: str) -> str:
    """Draw a box with a title, and lines below it."""
    middle = x + width / 2
    top = y + height / 2 - 8 * len(lines) + 4.5
    return (
        f"<rect x='{x:g}' y='{y:g}' width='{width:g}' height='{height:g}' rx='6' fill='{fill}' "
        f"stroke='{EDGES[fill]}'/>\n"
        + text(middle, top, title, anchor="middle", weight="bold", size=13.5)
        + text(middle, top + 17, lines, anchor="middle", size=12, colour=FAINT)
    )


def arrow(points: list[tuple[float, float]], *, dashed: bool = False, colour: str = INK) -> str:
    """Draw an arrow along *points*."""
    path = " ".join(f"{x:g},{y:g}" for x, y in points)
    dashes = " stroke-dasharray='5 4'" if dashed else ""
    return (
        f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='1.4'{dashes} "
        "marker-end='url(#head)'/>\n"
    )


def line(x1: float, y1: float, x2: float, y2: float, *, dashed: bool = True) -> str:
    """Draw a thin line."""
    dashes = " stroke-dasharray='3 4'" if dashed else ""
    return f"<line x1='{x1:g}' y1='{y1:g}' x2='{x2:g}' y2='{y2:g}' stroke='{LINE}'{dashes}/>\n"


def picture(width: float, height: float, title: str, parts: Iterable[str]) -> str:
    """Make an SVG of *parts*, on white, so that it is readable on a dark page too."""
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width:g} {height:g}' "
        f"width='{width:g}' height='{height:g}' role='img' {FONT}>\n"
        f"<title>{escape(title)}</title>\n"
        "<defs><marker id='head' viewBox='0 0 10 10' refX='9' refY='5' markerWidth='8' "
        "markerHeight='8' orient='auto-start-reverse'>"
        f"<path d='M0,1 L10,5 L0,9 z' fill='{INK}'/></marker></defs>\n"
        f"<rect width='{width:g}' height='{height:g}' rx='10' fill='#ffffff'/>\n"
        + "".join(parts)
        + "</svg>\n"
    )


def life_of_a_request() -> str:
    """Draw the steps of one request, from the call to its outcome, with its cancellations."""
    left, wide = 230.0, 290.0
    middle, right = left + wide / 2, left + wide + 24
    steps = [
        (GREY, "the caller", ("await session.info(ids)",)),
        (BLUE, "a worker takes an id", ("a few workers, one iterator; no task per id",)),
        (BLUE, "the limiter", ("one slot of the client's limit",)),
        (GREEN, "build", ("kaleden._wire: pure, no I/O",)),
        (BLUE, "the transport", ("login, connection, one attempt with a time-out",)),
        (GREEN, "classify, then parse", ("kaleden._wire: pure, no I/O",)),
        (BLUE, "the slot is released", ("to the next request in the queue",)),
        (GREY, "Outcomes, or a stream", ("one outcome for each id",)),
    ]
    cancelled = {
        1: ("nothing was sent for", "the remaining ids"),
        2: ("removed from the queue;", "nothing was sent"),
        4: ("the exchange is aborted, its", "connection closed, its slot", "released"),
        7: ("outcomes of a call are lost;", "items received from a", "stream are kept"),
    }
    height, gap, top = 48.0, 26.0, 56.0
    parts = [
        text(left - 20, 32, "possible failures", anchor="end", size=12, colour=FAINT),
        text(right, 32, "if cancelled here", size=12, colour=FAINT),
    ]
    tops = [top + number * (height + gap) for number in range(len(steps))]
    for number, (fill, title, lines) in enumerate(steps):
        y = tops[number]
        parts.append(box(left, y, wide, height, fill, title, *lines))
        if number:
            parts.append(arrow([(middle, y - gap), (middle, y)]))
        if number in cancelled:
            count = len(cancelled[number])
            parts.append(line(left + wide, y + height / 2, right - 4, y + height / 2))
            first = y + height / 2 - 8 * (count - 1) + 4
            parts.append(text(right, first, cancelled[number], size=12))

    def draw_failure(number: int, *lines: str, width: float = 190) -> None:
        y = tops[number]
        parts.append(box(14, y, width, height, RED, *lines))

    draw_failure(2, "paused by Retry-After", "beyond the deadline")
    draw_failure(3, "invalid", "a bad id; nothing was sent")
    draw_failure(5, "Failure", "a kind, the server's message")
    for number in (2, 3, 5):
        y = tops[number] + height / 2
        parts.append(arrow([(left, y), (204, y)], colour=EDGES[RED]))

    # The retry, from the released slot back to the limiter, and the end of a final failure.
    y = tops[6] + height / 2
    parts.append(box(14, tops[6], 190, height, GREY, "retry?", "kind, budget, deadline"))
    parts.append(arrow([(109, tops[5] + height), (109, tops[6])]))
    loop = 6.0
    parts.append(
        arrow(
            [
                (14, y),
                (loop, y),
                (loop, tops[1] + 60),
                (left + 30, tops[1] + 60),
                (left + 30, tops[2]),
            ],
            dashed=True,
        )
    )
    parts.append(text(14, tops[1] + 52, "after the back-off", size=11.5, colour=FAINT))
    end = tops[7] + height / 2
    parts.append(arrow([(109, tops[6] + height), (109, end), (left, end)]))
    parts.append(text(116, end - 6, "final", size=11.5, colour=FAINT))
    return picture(740, tops[-1] + height + 22, "The life of a request", parts)


LANES = {"caller": 70.0, "scope": 215.0, "ledger": 340.0, "request": 480.0, "server": 655.0}


class Sequence:
    """A sequence diagram that grows downwards."""

    def __init__(self, lanes: dict[str, tuple[float, str, str]], y: float = 74) -> None:
        self.lanes = lanes
        self.y = y
        self.parts: list[str] = []

    def step(self, start: str, end: str, label: str, *, dashed: bool = False) -> None:
        """Draw a message from lane to lane."""
        x1, x2 = self.lanes[start][0], self.lanes[end][0]
        inset = 5 if x2 > x1 else -5
        middle = (x1 + x2) / 2
        self.parts.append(text(middle, self.y - 5, label, anchor="middle", size=12, halo=True))
        self.parts.append(arrow([(x1 + inset, self.y), (x2 - inset, self.y)], dashed=dashed))
        self.y += 30

    def note(self, lane: str, *lines: str, width: float = 190, side: float = 0.5) -> None:
        """Draw a note on a lane; *side* is where the lane crosses it, from 0 to 1."""
        x = self.lanes[lane][0] - width * side
        height = 16 * len(lines) + 8
        y = self.y - 16
        self.parts.append(
            f"<rect x='{x:g}' y='{y:g}' width='{width:g}' height='{height:g}' rx='4' "
            f"fill='#fff8e1' stroke='#d9b24c'/>\n"
        )
        self.parts.append(text(x + width / 2, y + 16, lines, anchor="middle", size=12))
        self.y += height + 12

    def heading(self, title: str, width: float) -> None:
        """Draw a line across, and the title of the next part below it."""
        self.y += 4
        self.parts.append(line(14, self.y - 10, width - 14, self.y - 10, dashed=False))
        self.parts.append(text(18, self.y + 8, title, weight="bold", size=12.5, halo=True))
        self.y += 40

    def picture(self, width: float, title: str) -> str:
        """Draw the lanes behind all other parts."""
        behind = []
        for x, name, below in self.lanes.values():
            behind.append(line(x, 52, x, self.y))
            behind.append(box(x - 58, 12, 116, 40, BLUE, name, below))
        return picture(width, self.y + 14, title, [*behind, *self.parts])


def launch() -> str:
    """Draw the launch protocol in a scope: a successful launch, two others, and the clean-up."""
    titles = {
        "caller": ("the caller", "its own task"),
        "scope": ("the scope", "owns the sessions"),
        "ledger": ("the ledger", "a file, optional"),
        "request": ("the request", "own task, shielded"),
        "server": ("the server", "Skaha"),
    }
    lanes = {key: (x, *titles[key]) for key, x in LANES.items()}
    width = 740.0
    drawing = Sequence(lanes)
    drawing.step("caller", "scope", "scope.create(...)")
    drawing.note("scope", "checks input, adds tokens")
    drawing.step("scope", "ledger", "launching")
    drawing.step("ledger", "request", "on the disk")
    drawing.step("request", "server", "POST, once")
    drawing.step("server", "request", "the id")
    drawing.step("request", "scope", "owned from now on")
    drawing.step("scope", "ledger", "launched, the id")
    drawing.step("scope", "caller", "Outcomes")

    drawing.heading("no response, or an inconclusive one (500, reset, time-out)", width)
    drawing.step("server", "request", "?", dashed=True)
    drawing.step("request", "scope", "unconfirmed")
    drawing.step("scope", "server", "list: is the token in a name? Repeated for settle seconds")
    drawing.note("server", "found: owned, as above", width=180, side=0.62)
    drawing.step("scope", "caller", "or unknown_effect")

    drawing.heading("the caller is cancelled", width)
    drawing.note("request", "not sent yet: never sent", width=220)
    drawing.note("request", "in flight: awaited for", "create_grace seconds more", width=220)
    drawing.step("request", "scope", "owned, or unconfirmed")

    drawing.heading("the block ends, for any reason", width)
    drawing.note("scope", "no more launches; creates", "in flight are awaited", width=200)
    drawing.step("scope", "server", "list: search unconfirmed; DELETE each; list again")
    drawing.note("server", "repeated until a list", "shows no session", width=170, side=0.62)
    drawing.step("scope", "ledger", "ended")
    drawing.step("scope", "caller", "its exception, if any")
    drawing.note("caller", "grace has passed,", "sessions are left:", "ScopeError", width=130)
    return drawing.picture(width, "The launch protocol")


PICTURES = {"life-of-a-request.svg": life_of_a_request, "launch.svg": launch}

if __name__ == "__main__":
    for name, draw in PICTURES.items():
        (HERE / name).write_text(draw(), encoding="utf-8")
