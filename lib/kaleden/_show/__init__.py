"""Results as tables: data for other libraries, and pictures of them for people."""

from __future__ import annotations

from kaleden._show._columns import Grid, outcome_grid, session_grid
from kaleden._show._display import open_display
from kaleden._show._html import to_html
from kaleden._show._optional import needs
from kaleden._show._rich import COLOURS
from kaleden._show._tabular import Tabular
from kaleden._show._view import Tone, View, choose, status_tone, view

__all__ = (
    "COLOURS",
    "Grid",
    "Tabular",
    "Tone",
    "View",
    "choose",
    "needs",
    "open_display",
    "outcome_grid",
    "session_grid",
    "status_tone",
    "to_html",
    "view",
)
