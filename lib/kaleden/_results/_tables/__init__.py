"""Results as tables: data for other libraries, and pictures of them for people."""

from __future__ import annotations

from kaleden._results._tables._columns import Grid, outcome_grid, session_grid
from kaleden._results._tables._dataframes import needs
from kaleden._results._tables._html import to_html
from kaleden._results._tables._layout import Tone, View, choose, status_tone, view
from kaleden._results._tables._live import open_display
from kaleden._results._tables._mixin import Tabular
from kaleden._results._tables._rich import COLOURS

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
