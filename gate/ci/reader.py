"""The child that opens Parquet files of an untrusted artifact: `python -m gate.ci.reader FILE...` → frames on stdout.

Holds no secret, has no network and little memory; whatever takes it over can say no more than the files could.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

from gate import confinement, wire
from gate.frames import Sender

MEMORY_BYTES = 8 * 2**30
CPU_SECONDS = 600


def main(names: Sequence[str]) -> int:
    """Send every measurement in slices, `end` after each, `done` or `error` at last."""
    confinement.confine(network=False, device="cpu")
    limits = {resource.RLIMIT_AS: MEMORY_BYTES, resource.RLIMIT_CPU: CPU_SECONDS, resource.RLIMIT_FSIZE: 0}
    for kind, limit in limits.items():
        hard = resource.getrlimit(kind)[1]
        lower = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (lower, lower))
    from gate import artifact  # after the limits: this is where pyarrow comes in
    from gate.errors import ArtifactError

    with os.fdopen(os.dup(1), "wb") as stdout:
        send = Sender(stdout.fileno()).send
        for name in names:
            try:
                for one in artifact.read_observations(Path(name)):
                    for part in wire.encoded(one):
                        send({"op": "part", "measurement": part})
                    send({"op": "end"})
            except (ArtifactError, ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as problem:
                send({"op": "error", "message": str(problem)[:500] or type(problem).__name__})
                return 1
        send({"op": "done"})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
