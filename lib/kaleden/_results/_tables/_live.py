"""A table that changes in its place: in a notebook, on a terminal, or line by line elsewhere."""

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
"""Rows of a table that is drawn again and again, in the event loop: some milliseconds each time."""


@contextmanager
def open_display() -> Generator[Draw]:
    """Open the display that there is; what is drawn last stays there."""
    if _is_notebook():
        yield _NotebookDisplay().draw
        return

    try:
        from rich.console import Console  # noqa: PLC0415  # it takes its time, and is an extra's
        from rich.live import Live  # noqa: PLC0415
    except ImportError:
        yield _LineDisplay().draw
        return

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _LineDisplay().draw
        return

    # What the program prints goes above the table, unless it goes elsewhere anyway.
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
    """One output of a cell, drawn anew each time."""

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
    """A line wherever the caption changed."""

    def __init__(self) -> None:
        self._last = ""

    def draw(self, table: Tabular) -> None:
        caption = build_bounded_view(table, 0).caption
        if caption != self._last:
            self._last = caption
            sys.stderr.write(f"{caption}\n")
            sys.stderr.flush()
