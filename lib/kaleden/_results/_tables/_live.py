"""Live display of a table: in place in notebooks and terminals, line by line elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Final, TypeAlias, final

from kaleden._results._tables._html import to_html
from kaleden._results._tables._layout import View
from kaleden._results._tables._mixin import Tabular, build_bounded_view
from kaleden._results._tables._rich import to_rich

Draw: TypeAlias = Callable[[Tabular], object]

MAX_LIVE_ROWS: Final = 20
"""Maximum number of rows of a live table. Each redraw takes some milliseconds of the event loop."""


@contextmanager
def open_display() -> Generator[Draw]:
    """Open the best available display. The last table that was drawn stays visible."""
    if _is_notebook():
        yield _NotebookDisplay().draw
        return

    try:
        from rich.console import Console  # noqa: PLC0415  # slow to import, and optional
        from rich.live import Live  # noqa: PLC0415
    except ImportError:
        yield _LineDisplay().draw
        return

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _LineDisplay().draw
        return

    # Redirect the program's output above the table, unless it does not go to the terminal.
    to_terminal = sys.stdout.isatty()
    with Live(console=console, auto_refresh=False, redirect_stdout=to_terminal) as live:
        yield lambda table: live.update(
            to_rich(build_bounded_view(table, MAX_LIVE_ROWS)), refresh=True
        )


def _is_notebook() -> bool:
    """Whether this program is a Jupyter kernel."""
    module = sys.modules.get("IPython")
    shell = None if module is None else module.get_ipython()
    return getattr(shell, "kernel", None) is not None


@final
class _NotebookDisplay:
    """A display in the output of a notebook cell, updated in place."""

    def __init__(self) -> None:
        self._handle: Any = None

    def draw(self, table: Tabular) -> None:
        drawn = _NotebookTable(build_bounded_view(table, MAX_LIVE_ROWS))
        if self._handle is None:
            self._handle = sys.modules["IPython"].display.display(drawn, display_id=True)
        else:
            self._handle.update(drawn)


@final
class _NotebookTable:
    def __init__(self, view: View) -> None:
        self._view = view

    def __repr__(self) -> str:
        return self._view.caption

    def _repr_html_(self) -> str:
        return to_html(self._view)


@final
class _LineDisplay:
    """A display on standard error: one line each time that the caption changes."""

    def __init__(self) -> None:
        self._last = ""

    def draw(self, table: Tabular) -> None:
        caption = build_bounded_view(table, 0).caption
        if caption != self._last:
            self._last = caption
            sys.stderr.write(f"{caption}\n")
            sys.stderr.flush()
