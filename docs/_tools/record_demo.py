"""Record ``kaleden demo`` as an animated SVG: ``python docs/_tools/record_demo.py``.

The SVG repeats the run in a loop. Without animation it shows the last frame.
"""

from __future__ import annotations

import re
import time
from collections.abc import Generator
from contextlib import contextmanager
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
from rich.console import Console, Group, RenderableType
from rich.terminal_theme import MONOKAI
from rich.text import Text

from kaleden import ProgressUpdate
from kaleden._cli._demo import _display, _run

PICTURE = Path(__file__).parents[1] / "_static" / "demo.svg"
WIDTH = 66
LAST = 6.0  # seconds for which the last frame is shown
LEAST = 0.7  # the fewest seconds for which any other frame is shown

FORMAT = """\
<g class='frame' id='{unique_id}'>
<style>{styles}</style>
<defs><clipPath id='{unique_id}-clip-terminal'>
<rect x='0' y='0' width='{terminal_width}' height='{terminal_height}'/></clipPath>{lines}</defs>
{chrome}
<g transform='translate({terminal_x}, {terminal_y})' clip-path='url(#{unique_id}-clip-terminal)'>
{backgrounds}<g class='matrix'>{matrix}</g></g>
</g>
<!-- {width} {height} {char_height} {line_height} -->"""


class Recorder:
    """Records the content of a console each time it changes."""

    def __init__(self) -> None:
        self.console = Console(record=True, width=WIDTH, force_terminal=True, file=StringIO())
        self.frames: list[tuple[float, RenderableType]] = []
        self.table: RenderableType | None = None

    def take(self) -> None:
        """Record the current content as a frame."""
        printed = Text.from_ansi(self.console.export_text(clear=False, styles=True).rstrip())
        parts = [printed] if self.table is None else [printed, self.table]
        self.frames.append((time.monotonic(), Group(*parts)))

    def show(self, update: ProgressUpdate) -> None:
        """Record the table of the sessions' states."""
        if update.operation == "wait":
            self.table = _display.format_table(update)
            self.take()

    @contextmanager
    def board(self, _console: Console) -> Generator[Any]:
        """Open the demo's status display on this recorder."""
        self.take()
        yield self.show
        assert self.table is not None
        self.console.print(self.table)
        self.table = None


def record() -> list[tuple[float, RenderableType]]:
    """Run the demo, and return its frames, each with the time in seconds."""
    recorder = Recorder()
    _run.open_status_display = recorder.board
    assert anyio.run(_run.run, _run.DemoOptions(), recorder.console).status == 0
    recorder.take()
    return recorder.frames


def render(shown: RenderableType, number: int, height: int) -> tuple[str, float, float]:
    """Draw a frame of *height* lines.

    Returns:
        The SVG, its width and its height.
    """
    console = Console(record=True, width=WIDTH, file=StringIO())
    prompt = Text.assemble(("$ ", "bold green"), "kaleden demo")
    lines = console.render_lines(Group(prompt, shown), pad=False)
    console.print(prompt)
    console.print(shown)
    for _ in range(height - len(lines)):
        console.print()
    svg = console.export_svg(
        title="kaleden demo", theme=MONOKAI, code_format=FORMAT, unique_id=f"f{number}"
    )
    size = re.search(r"<!-- (\S+) (\S+) \S+ \S+ -->", svg)
    assert size is not None
    return svg.replace(size[0], ""), float(size[1]), float(size[2])


def line_count(shown: RenderableType) -> int:
    """Count the lines of a frame, including the prompt."""
    return 1 + len(Console(width=WIDTH).render_lines(shown, pad=False))


def play(frames: list[tuple[float, RenderableType]]) -> str:
    """Combine frames into one SVG that shows each for as long as the console did."""
    times = [when for when, _ in frames]
    seconds = [max(LEAST, later - when) for when, later in pairwise(times)] + [LAST]
    whole, begin = sum(seconds), 0.0
    height = max(line_count(shown) for _, shown in frames)
    drawn = [render(shown, number, height) for number, (_, shown) in enumerate(frames)]
    styles = [
        ".frame { visibility: hidden; }",
        "text { font-family: Helvetica, Arial, sans-serif; }",
        ".matrix text { font-family: 'Fira Code', Menlo, 'DejaVu Sans Mono', monospace; }",
        ".matrix text { font-size: 20px; line-height: 24.4px; }",
    ]
    for number, lasts in enumerate(seconds):
        first, last = 100 * begin / whole, 100 * (begin + lasts) / whole
        shown = f"{first:.2f}%, {last - 0.01:.2f}% {{ visibility: visible; }}"
        hidden = f"{last:.2f}%, 100% {{ visibility: hidden; }}" if number < len(seconds) - 1 else ""
        before = "0% { visibility: hidden; }" if number else ""
        styles.append(f"@keyframes k{number} {{ {before} {shown} {hidden} }}")
        styles.append(f"#f{number} {{ animation: k{number} {whole:.2f}s step-end infinite; }}")
        begin += lasts
    end = f"#f{len(frames) - 1}"
    styles.append(f"{end} {{ visibility: visible; }}")
    styles.append(
        "@media (prefers-reduced-motion: reduce) { .frame { animation: none !important; } }"
    )
    _, wide, high = drawn[0]
    style = "\n".join(styles)
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {wide:g} {high:g}' role='img'>\n"
        f"<title>kaleden demo: twelve sessions are launched, watched, read and ended</title>\n"
        f"<style>\n{style}\n</style>\n" + "\n".join(svg for svg, _, _ in drawn) + "\n</svg>\n"
    )


if __name__ == "__main__":
    PICTURE.write_text(play(record()), encoding="utf-8")
