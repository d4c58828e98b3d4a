"""Bars that show how far an operation is, for its argument ``progress``.

Each is opened first, and closed at the end of its block, whatever happened in it::

    with rich_bars() as progress:
        results = session.run("fits", image, replicas=100, progress=progress)

They serve `Session` and `AsyncSession` alike. A block may show several operations, with a bar for
each. The extra ``progress`` brings the libraries that draw them.
"""

from __future__ import annotations

from kaleden._bars import rich_bars, tqdm_bars
from kaleden._public import publish as _publish

__all__ = ("rich_bars", "tqdm_bars")

_publish(__name__, __all__, globals())
