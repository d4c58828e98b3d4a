"""Tables for pandas and astropy, which are imported when they are first used."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

from kaleden._results._tables._columns import Column, Grid, Type


def import_extra(module: str, extra: str) -> Any:
    """Import a module that an optional dependency provides.

    Args:
        module: the name of the module.
        extra: the extra of kaleden that installs it.

    Raises:
        ImportError: the module is not installed. The message has the command that installs it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        library = module.partition(".")[0]
        # Another missing module is a fault of the library's installation, not of the extra.
        if error.name is None or error.name.partition(".")[0] != library:
            raise

        msg = f"this needs {library}, which is not installed: pip install 'kaleden[{extra}]'"
        raise ImportError(msg, name=library) from error


# These types all support missing values, so the type of a column does not depend on its values.
_PANDAS_TYPES: Final = {
    Type.TEXT: "string",
    Type.WHOLE: "Int64",
    Type.NUMBER: "Float64",
    Type.FLAG: "boolean",
    Type.TIME: "datetime64[us, UTC]",
    Type.OTHER: "object",
}


def to_pandas(grid: Grid) -> Any:
    """Return a ``pandas.DataFrame`` with the units in its ``attrs``."""
    pandas = import_extra("pandas", "pandas")

    def build_series(column: Column) -> Any:
        return pandas.Series(grid.get_cells(column), dtype=_PANDAS_TYPES[column.type])

    frame = pandas.DataFrame({column.name: build_series(column) for column in grid.columns})
    frame.attrs["method"] = grid.operation
    frame.attrs["units"] = {column.name: column.unit for column in grid.columns if column.unit}
    return frame


# Placeholders for missing values, which are masked.
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
    """Return an ``astropy.table.Table`` with units and descriptions in its columns."""
    tables = import_extra("astropy.table", "astropy")
    table = tables.Table({column.name: _build_column(column, grid) for column in grid.columns})
    table.meta["method"] = grid.operation  # A FITS keyword has at most eight characters.
    return table


def _build_column(column: Column, grid: Grid) -> Any:
    is_time = column.type is Type.TIME
    result = _build_times(column, grid) if is_time else _build_values(column, grid)
    result.info.description = column.description or None
    return result


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
    """Build an astropy ``Time``, in which NaT is masked."""
    numpy = import_extra("numpy", "astropy")
    naive = [
        "NaT" if cell is None else cell.replace(tzinfo=None) for cell in grid.get_cells(column)
    ]
    values = numpy.array(naive, dtype="datetime64[us]")
    time = import_extra("astropy.time", "astropy").Time(values, format="datetime64", scale="utc")
    time.format = "isot"
    return time
