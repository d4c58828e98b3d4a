"""The program that each replica of the demo runs: its share of a count of primes."""

from __future__ import annotations

import base64
import inspect
import re

from attrs import frozen

from kaleden import distributed

LIMIT = 1_000_000
PRIMES = 78_498
"""Primes below `LIMIT`, which all shares together must count."""

# The image may be without kaleden, so the program brings the module that splits the work.
_PROGRAM = f"""{inspect.getsource(distributed)}

from math import isqrt

replica = os.environ["REPLICA_ID"]
if replica == os.environ.get("KALEDEN_DEMO_FAILS"):
    print("replica", replica, "fails on purpose, to show what that looks like", flush=True)
    raise SystemExit("no such file: night-" + replica + ".fits")
share = chunk(range(2, {LIMIT}))
primes = sum(all(n % d for d in range(2, isqrt(n) + 1)) for n in share)
print("replica", replica, "looked at", share)
print("primes:", primes)
"""

# Arguments are split at spaces and the server knows no quoting, so the program travels in the
# environment, in an alphabet that arrives unchanged, and this loads it.
_LOADER = "exec(__import__('base64').urlsafe_b64decode(__import__('os').environ['KALEDEN_DEMO']))"

COMMAND = "python3"
ARGUMENTS = ("-c", _LOADER)


@frozen
class Share:
    """What one replica found."""

    primes: int


def environment(fails: int | None) -> dict[str, str]:
    """Make the environment that brings the program; the replica of number *fails* will fail."""
    program = _PROGRAM.encode()
    # Three bytes become four characters; anything else would end in "=", at which the server
    # splits.
    program += b"\n" * (-len(program) % 3)
    variables = {"KALEDEN_DEMO": base64.urlsafe_b64encode(program).decode()}
    return variables if fails is None else {**variables, "KALEDEN_DEMO_FAILS": str(fails)}


def read(log: str) -> Share | None:
    """Find a replica's result in its output."""
    found = re.search(r"^primes: (\d+)$", log, re.MULTILINE)
    return Share(int(found[1])) if found else None
