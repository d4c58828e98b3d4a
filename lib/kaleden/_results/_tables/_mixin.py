"""Mixin for results that can be displayed and converted as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kaleden._results._tables._columns import Grid
from kaleden._results._tables._dataframes import to_pandas, to_table
from kaleden._results._tables._html import to_html
from kaleden._results._tables._layout import MAX_ROWS, View
from kaleden._results._tables._rich import to_rich

if TYPE_CHECKING:
    from rich.console import Group


class Tabular:
    """A result with one row per session.

    Notebooks and ``rich.print`` show it as a table of at most a hundred rows. If there are more,
    failures take precedence over successes.
    """

    __slots__ = ()

    def _build_grid(self) -> Grid:
        """Build the complete table."""
        raise NotImplementedError

    def _build_view(self, limit: int) -> View:
        """Build a display of at most *limit* rows."""
        raise NotImplementedError

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return one dict per row, all with the same keys; missing values are None.

        Returns:
            Plain data: strings, numbers, bools, and aware datetimes in UTC. Sizes are in bytes,
            durations in seconds. Results of a call with ``raw=True`` have the server's keys. The
            URL of a session's page, which is a secret, is left out.
        """
        grid = self._build_grid()
        names = [column.name for column in grid.columns]
        return [{name: row.get(name) for name in names} for row in grid.rows]

    def to_pandas(self) -> Any:
        """Return a ``pandas.DataFrame`` with the columns of `to_dicts`.

        All columns have types that support missing values. ``frame.attrs["units"]`` maps the names
        of columns to their units, ``"B"`` or ``"s"``. ``frame.attrs["method"]`` is the name of the
        method that returned the results.

        Raises:
            ImportError: pandas is not installed: ``pip install 'kaleden[pandas]'``.
        """
        return to_pandas(self._build_grid())

    def to_table(self) -> Any:
        """Return an ``astropy.table.Table`` with the columns of `to_dicts`.

        Columns have a unit and a description, times are ``astropy.time.Time``, and missing values
        are masked. ``astropy.table.QTable(table)`` converts the columns to quantities.
        ``table.meta["method"]`` is the name of the method that returned the results.

        Raises:
            ImportError: astropy is not installed: ``pip install 'kaleden[astropy]'``.
        """
        return to_table(self._build_grid())

    def _repr_html_(self) -> str:
        return to_html(self._build_view(MAX_ROWS))

    def __rich__(self) -> Group:
        return to_rich(self._build_view(MAX_ROWS))


def build_bounded_view(table: Tabular, limit: int) -> View:
    """Build a display of at most *limit* rows of *table*."""
    return table._build_view(limit)  # pyright: ignore[reportPrivateUsage]
