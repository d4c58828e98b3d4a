"""The program that each replica of the demo runs: it counts the primes in its share."""

from __future__ import annotations

import base64
import inspect
import re

from attrs import frozen

from kaleden import distributed

LIMIT = 1_000_000
PRIMES = 78_498
"""The number of primes below `LIMIT`: the sum over all shares."""

# The image may not contain kaleden, so the program includes the module that splits the work.
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

# The server splits arguments at spaces and does not support quoting. So an environment variable
# carries the program in base64, which arrives unchanged, and this argument executes it.
_LOADER = "exec(__import__('base64').urlsafe_b64decode(__import__('os').environ['KALEDEN_DEMO']))"

COMMAND = "python3"
ARGUMENTS = ("-c", _LOADER)


@frozen
class Share:
    """The result of one replica.

    Attributes:
        primes: the number of primes in its share.
    """

    primes: int


def make_environment(failing: int | None) -> dict[str, str]:
    """Return the environment that carries the program.

    Args:
        failing: the number of the replica that fails on purpose, from 1; None for none.
    """
    program = _PROGRAM.encode()
    # The server splits a variable at "=". Base64 has no "=" padding if the length is a multiple of
    # 3 bytes.
    program += b"\n" * (-len(program) % 3)
    variables = {"KALEDEN_DEMO": base64.urlsafe_b64encode(program).decode()}
    return variables if failing is None else {**variables, "KALEDEN_DEMO_FAILS": str(failing)}


def parse_share(log: str) -> Share | None:
    """Find the result of a replica in its log; None if there is none."""
    found = re.search(r"^primes: (\d+)$", log, re.MULTILINE)
    return Share(int(found[1])) if found else None
