"""Parsl's blocks as headless sessions: a provider for Parsl, such as it has for Slurm.

::

    with SkahaProvider("skaha/astroml:latest", max_blocks=4) as provider:
        executor = HighThroughputExecutor(provider=provider, max_workers_per_node=1)
        with parsl.load(Config(executors=[executor])):
            ...

It needs the extra ``parsl``. ``docs/how-to/use-with-parsl.md`` has a whole program.
"""

from __future__ import annotations

from importlib.util import find_spec as _find_spec

if _find_spec("parsl") is None:
    raise ImportError("kaleden.parsl needs Parsl: pip install 'kaleden[parsl]'")

from kaleden._parsl import SkahaProvider
from kaleden._public import publish as _publish

__all__ = ("SkahaProvider",)

_publish(__name__, __all__, globals())
