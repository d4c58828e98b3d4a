"""Progress bars, for the argument ``progress`` of an operation.

Each function is a context manager: it opens the bars, and closes them when the block ends, also
after an error::

    with rich_bars() as progress:
        results = session.run("fits", image, replicas=100, progress=progress)

They work with both `Session` and `AsyncSession`. A block may run several operations; each gets a
bar. The extra ``progress`` installs the libraries.
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
    """Open progress bars of rich, with the count of each state beside them.

    If the output is not a terminal, the final state is printed when the block ends.

    Args:
        console: the console for the output; by default standard output.

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

    def show(update: ProgressUpdate) -> None:
        nonlocal last, task
        if _is_new_operation(last, update):
            task = bars.add_task(update.operation, states="")
        last = update
        bars.update(
            task, completed=update.done, total=update.expected, states=_format_states(update)
        )

    with bars:
        yield show


@contextmanager
def tqdm_bars(**options: Any) -> Generator[ProgressCallback]:
    """Open progress bars of tqdm, with the count of each state after them.

    Args:
        **options: arguments for ``tqdm.tqdm``, such as ``file`` or ``leave``.

    Raises:
        ImportError: tqdm is not installed: ``pip install 'kaleden[progress]'``.
    """
    make = import_extra("tqdm", "progress").tqdm
    last: ProgressUpdate | None = None
    bar: Any = None

    def show(update: ProgressUpdate) -> None:
        nonlocal bar, last
        if _is_new_operation(last, update):
            if bar is not None:
                bar.close()
            given = {"desc": update.operation, "unit": " sessions", **options}
            bar = make(total=update.expected, **given)
        last = update
        bar.total = update.expected
        bar.set_postfix_str(_format_states(update), refresh=False)
        # tqdm redraws at most ten times a second, and not at all if the count does not grow.
        more = update.done - bar.n
        if not bar.update(more) and (more == 0 or update.done == update.expected):
            bar.refresh()

    try:
        yield show
    finally:
        if bar is not None:
            bar.close()


def _is_new_operation(last: ProgressUpdate | None, update: ProgressUpdate) -> bool:
    """Whether *update* belongs to another operation than *last*."""
    return last is None or last.operation != update.operation or last.done > update.done


def _format_states(update: ProgressUpdate) -> str:
    return "".join(char for char in str(update) if char.isprintable())


_publish(__name__, __all__, globals())
