"""Bars that show how far an operation is, for its argument ``progress``.

Each is opened first, and closed at the end of its block, whatever happened in it::

    with rich_bars() as progress:
        results = session.run("fits", image, replicas=100, progress=progress)

They serve `Session` and `AsyncSession` alike. A block may show several operations, with a bar for
each. The extra ``progress`` brings the libraries that draw them.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kaleden._public import publish as _publish
from kaleden._results._progress import ProgressCallback, ProgressUpdate
from kaleden._results._tables import import_extra

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ("rich_bars", "tqdm_bars")


@contextmanager
def rich_bars(console: Console | None = None) -> Generator[ProgressCallback]:
    """Open bars that rich draws, with the count of each state beside them.

    Where there is no terminal, their last state is printed when the block ends.

    Args:
        console: where to draw; by default standard output.

    Raises:
        ImportError: rich is not installed: ``pip install 'kaleden[progress]'``.
    """
    parts = import_extra("rich.progress", "progress")
    bars = parts.Progress(
        parts.TextColumn("{task.description}", markup=False),
        parts.BarColumn(),
        parts.MofNCompleteColumn(),
        parts.TimeElapsedColumn(),
        parts.TextColumn("{task.fields[states]}", markup=False),
        console=console,
    )
    last: ProgressUpdate | None = None
    task: Any = None

    def show(tally: ProgressUpdate) -> None:
        nonlocal last, task
        if _is_new_operation(last, tally):
            task = bars.add_task(tally.operation, states="")
        last = tally
        bars.update(task, completed=tally.done, total=tally.expected, states=_format_states(tally))

    with bars:
        yield show


@contextmanager
def tqdm_bars(**options: Any) -> Generator[ProgressCallback]:
    """Open bars that tqdm draws, with the count of each state behind them.

    Args:
        **options: what ``tqdm.tqdm`` takes, such as ``file`` or ``leave``.

    Raises:
        ImportError: tqdm is not installed: ``pip install 'kaleden[progress]'``.
    """
    make = import_extra("tqdm", "progress").tqdm
    last: ProgressUpdate | None = None
    bar: Any = None

    def show(tally: ProgressUpdate) -> None:
        nonlocal bar, last
        if _is_new_operation(last, tally):
            if bar is not None:
                bar.close()
            given = {"desc": tally.operation, "unit": " sessions", **options}
            bar = make(total=tally.expected, **given)
        last = tally
        bar.total = tally.expected
        bar.set_postfix_str(_format_states(tally), refresh=False)
        # It draws at most ten times a second, and not by itself if nothing more is done.
        more = tally.done - bar.n
        if not bar.update(more) and (more == 0 or tally.done == tally.expected):
            bar.refresh()

    try:
        yield show
    finally:
        if bar is not None:
            bar.close()


def _is_new_operation(last: ProgressUpdate | None, tally: ProgressUpdate) -> bool:
    """Whether *tally* is of another operation than the *last* one was."""
    return last is None or last.operation != tally.operation or last.done > tally.done


def _format_states(tally: ProgressUpdate) -> str:
    return "".join(char for char in str(tally) if char.isprintable())


_publish(__name__, __all__, globals())
