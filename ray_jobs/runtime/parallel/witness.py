"""A process that may die: it tries photos of a part and writes nothing. `python -m ray_jobs.runtime.parallel.witness`.

`inquest` starts it, says by standard input what to try, and reads from the descriptor it was given how far it came.

The work comes pickled: a function and what it is called with, as Ray carries them. It is read from standard input and
from nowhere else, which is an anonymous pipe that the worker of ours that started this process holds the other end of:
what comes out of it that worker, the same user, put in. No file, address or other process can.
"""

from __future__ import annotations

import json
import os
import resource
import struct
import sys
import traceback
from typing import Any

LENGTH = struct.Struct("!Q")


def main(descriptor: int) -> None:
    """Answers until nobody asks any more."""
    from ray import cloudpickle

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the photo
    answers = os.fdopen(descriptor, "w", buffering=1)
    asked = sys.stdin.buffer
    attempt, fixed, seconds, waits = cloudpickle.loads(asked.read(LENGTH.unpack(asked.read(LENGTH.size))[0]))

    from retrieval.artifacts.storage.patience import patience
    from retrieval.images import native

    native.limit(seconds)

    def say(**what: Any) -> None:
        answers.write(json.dumps(what) + "\n")

    with patience(waits):
        for line in asked:
            try:
                tried = attempt(**fixed, only=json.loads(line), progress=lambda _, done, __: say(done=done))
                say(tried=tried)
            except (OSError, MemoryError) as error:
                say(stopped=f"{type(error).__name__}: {error}")
            except Exception as error:  # noqa: BLE001  whatever it is: alone with one photo, it is that photo's
                traceback.print_exc()
                say(raised=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main(int(sys.argv[1]))
