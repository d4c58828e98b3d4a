"""What can be shown as a table, and taken elsewhere as one."""

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
    """Something with a row for each session.

    Notebooks show it as a table, and so does ``rich.print``: of many rows the first hundred, those
    that failed before the others.
    """

    __slots__ = ()

    def _grid(self) -> Grid:
        """Make the whole table."""
        raise NotImplementedError

    def _view(self, most: int) -> View:
        """Make what is shown of it, with *most* rows at most."""
        raise NotImplementedError

    def to_dicts(self) -> list[dict[str, Any]]:
        """Make one dict for each row, all with the same keys; None for what is not known.

        Returns:
            Plain data: strings, numbers, bools, and aware datetimes in UTC. Sizes are bytes, times
            seconds. Results that the server described in its own words (``raw=True``) have its own
            keys. The URL of a session's page, which is a secret, is left out.
        """
        grid = self._grid()
        names = [column.name for column in grid.columns]
        return [{name: row.get(name) for name in names} for row in grid.rows]

    def to_pandas(self) -> Any:
        """Make a ``pandas.DataFrame`` with the columns of `to_dicts`.

        All columns have types that know missing values. ``frame.attrs["units"]`` names the unit of
        each column that has one, ``"B"`` or ``"s"``, and ``frame.attrs["method"]`` what was called.

        Raises:
            ImportError: pandas is not installed: ``pip install 'kaleden[pandas]'``.
        """
        return to_pandas(self._grid())

    def to_table(self) -> Any:
        """Make an ``astropy.table.Table`` with the columns of `to_dicts`.

        Columns have their unit and description, times are ``astropy.time.Time``, and what is not
        known is masked. ``astropy.table.QTable(table)`` makes quantities of them, and
        ``table.meta["method"]`` names what was called.

        Raises:
            ImportError: astropy is not installed: ``pip install 'kaleden[astropy]'``.
        """
        return to_table(self._grid())

    def _repr_html_(self) -> str:
        return to_html(self._view(MAX_ROWS))

    def __rich__(self) -> Group:
        return to_rich(self._view(MAX_ROWS))


def build_bounded_view(table: Tabular, most: int) -> View:
    """Make what is shown of *table* in *most* rows."""
    return table._view(most)  # pyright: ignore[reportPrivateUsage]
