"""Tables for pandas."""

from __future__ import annotations

from typing import Any, Final

from kaleden._results._tables._columns import Column, Grid, Type
from kaleden._results._tables._optional import needs

# All of them know a missing value, so a column has one type whatever is in it.
_PANDAS_TYPES: Final = {
    Type.TEXT: "string",
    Type.WHOLE: "Int64",
    Type.NUMBER: "Float64",
    Type.FLAG: "boolean",
    Type.TIME: "datetime64[us, UTC]",
    Type.OTHER: "object",
}


def to_pandas(grid: Grid) -> Any:
    """Make a ``pandas.DataFrame``, with the units in its ``attrs``."""
    pandas = needs("pandas", "pandas")

    def series(column: Column) -> Any:
        return pandas.Series(grid.cells(column), dtype=_PANDAS_TYPES[column.type])

    frame = pandas.DataFrame({column.name: series(column) for column in grid.columns})
    frame.attrs["method"] = grid.operation
    frame.attrs["units"] = {column.name: column.unit for column in grid.columns if column.unit}
    return frame
