"""Tables for pandas."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

from kaleden._results._tables._columns import Column, Grid, Type


def import_extra(module: str, extra: str) -> Any:
    """Import a module of an extra, now that it is needed.

    Raises:
        ImportError: it is not installed; the message says what to install.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        library = module.partition(".")[0]
        # Something else that is missing is not for the extra to bring.
        if error.name is None or error.name.partition(".")[0] != library:
            raise

        msg = f"this needs {library}, which is not installed: pip install 'kaleden[{extra}]'"
        raise ImportError(msg, name=library) from error


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
    pandas = import_extra("pandas", "pandas")

    def build_series(column: Column) -> Any:
        return pandas.Series(grid.get_cells(column), dtype=_PANDAS_TYPES[column.type])

    frame = pandas.DataFrame({column.name: build_series(column) for column in grid.columns})
    frame.attrs["method"] = grid.operation
    frame.attrs["units"] = {column.name: column.unit for column in grid.columns if column.unit}
    return frame


# What stands where nothing is known; it is masked.
_FILL_VALUES: Final[dict[Type, Any]] = {
    Type.TEXT: "",
    Type.WHOLE: 0,
    Type.NUMBER: 0.0,
    Type.FLAG: False,
    Type.OTHER: "",
}
_ASTROPY_TYPES: Final = {
    Type.TEXT: "str",
    Type.WHOLE: "int64",
    Type.NUMBER: "float64",
    Type.FLAG: "bool",
    Type.OTHER: "str",
}
_UNITS: Final = {"B": "byte", "s": "s"}


def to_table(grid: Grid) -> Any:
    """Make an ``astropy.table.Table``, with the units and descriptions in its columns."""
    tables = import_extra("astropy.table", "astropy")
    table = tables.Table({column.name: _build_column(column, grid) for column in grid.columns})
    table.meta["method"] = grid.operation  # eight letters at most, for FITS
    return table


def _build_column(column: Column, grid: Grid) -> Any:
    made = _build_times(column, grid) if column.type is Type.TIME else _build_values(column, grid)
    made.info.description = column.description or None
    return made


def _build_values(column: Column, grid: Grid) -> Any:
    cells = grid.get_cells(column)
    if column.type is Type.OTHER:
        cells = [None if cell is None else str(cell) for cell in cells]
    filled = [_FILL_VALUES[column.type] if cell is None else cell for cell in cells]
    return import_extra("astropy.table", "astropy").MaskedColumn(
        filled,
        mask=[cell is None for cell in cells],
        dtype=_ASTROPY_TYPES[column.type],
        unit=_UNITS.get(column.unit),
    )


def _build_times(column: Column, grid: Grid) -> Any:
    """Make a ``Time``, in which NaT is masked."""
    numpy = import_extra("numpy", "astropy")
    naive = [
        "NaT" if cell is None else cell.replace(tzinfo=None) for cell in grid.get_cells(column)
    ]
    values = numpy.array(naive, dtype="datetime64[us]")
    time = import_extra("astropy.time", "astropy").Time(values, format="datetime64", scale="utc")
    time.format = "isot"
    return time
