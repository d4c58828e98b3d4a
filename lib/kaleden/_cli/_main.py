"""The entry point of the command line: running a command, and mapping errors to exit statuses."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Final

from kaleden._auth import EXPLAINED_BY
from kaleden._cli._io import (
    FAILURE,
    NOT_STARTED,
    READER_GONE,
    CannotWrite,
    LogHandler,
    Output,
    ReaderGone,
)
from kaleden._cli._parser import parse
from kaleden._cli._signals import INTERRUPTED
from kaleden._errors import ConnectFailed, KaledenError, RequestError, ScopeError

_DOCTOR: Final = "`kaleden doctor`"
_EXPECTED: Final = (KaledenError, CannotWrite, ImportError, OSError)

logger = logging.getLogger("kaleden")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: the arguments without the program's name; None for those of this process.

    Returns:
        The exit status; see `kaleden._cli._io`.
    """
    output = Output(json=False)
    handler = LogHandler(output)
    logger.addHandler(handler)
    try:
        with output.redirect():
            options = parse(sys.argv[1:] if argv is None else argv)
            output.json = options.json
            return _load_command(options.command)(options, output)
    except BaseException as error:
        status = _report_error(error, output)
        if status is None:
            raise
        return status
    finally:
        logger.removeHandler(handler)


def _load_command(name: str) -> Callable[[argparse.Namespace, Output], int]:
    # Import only this command: each one has other dependencies.
    command: Callable[[argparse.Namespace, Output], int]
    command = import_module(f"kaleden._cli._commands._{name}").main
    return command


def _report_error(error: BaseException, output: Output) -> int | None:
    """Print an error and return the exit status; None for an unexpected error, which is a bug."""
    errors = list(_flatten(error))
    for each in errors:
        if isinstance(each, ReaderGone):
            return READER_GONE
        if isinstance(each, KeyboardInterrupt):
            output.write_note("interrupted")
            return INTERRUPTED

    if not all(isinstance(each, _EXPECTED) for each in errors):
        return None

    for each in errors:
        output.write_note(f"kaleden: {_format_error(each)}")
    begun = any(isinstance(each, RequestError | ScopeError | CannotWrite) for each in errors)
    return FAILURE if begun else NOT_STARTED


def _format_error(error: BaseException) -> str:
    """Format an error, with a reference to ``kaleden doctor`` if that can explain it."""
    if isinstance(error, ConnectFailed):
        return f"{error}: see {_DOCTOR}"

    return str(error).replace(EXPLAINED_BY, _DOCTOR)


def _flatten(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions in nested groups, or *error* itself."""
    errors: tuple[BaseException, ...] = getattr(error, "exceptions", ())
    for each in errors:
        yield from _flatten(each)
    if not errors:
        yield error
