"""Tables of results: data for other libraries, and displays for notebooks and terminals."""

from __future__ import annotations

from kaleden._results._tables._columns import Grid, build_outcome_grid, build_session_grid
from kaleden._results._tables._dataframes import import_extra
from kaleden._results._tables._layout import Tone, View, build_view, find_status_tone, select_rows
from kaleden._results._tables._live import open_display
from kaleden._results._tables._mixin import Tabular
from kaleden._results._tables._rich import COLOURS

__all__ = (
    "COLOURS",
    "Grid",
    "Tabular",
    "Tone",
    "View",
    "build_outcome_grid",
    "build_session_grid",
    "build_view",
    "find_status_tone",
    "import_extra",
    "open_display",
    "select_rows",
)
