"""Which photo of a part ends its worker? The part is tried in a process that may die, and halved until it is found.

The process tells after each photo how far it is, so that the one at hand when it ended is tried alone first: a photo is
found after two deaths, and halving is for what does not tell, such as COLMAP's mapping of many photos together.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray_jobs.runtime.parallel.witness import LENGTH
from retrieval.artifacts.storage.patience import current

CRASHED, TIMED_OUT = "crashed", "timed-out"


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How a process ended over photos, and how many of them it had done; None: it did not tell of any."""

    reason: str
    detail: str
    done: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What an inquest came to. by: position in the part -> (image_id, reason, detail) of each photo to blame."""

    by: dict[int, tuple[str, str, str]] = field(default_factory=dict)
    seconds: float = 0.0


def look(
    attempt: Callable[..., Any],
    fixed: Mapping[str, Any],
    photo_seconds: float,
    *,
    known: Sequence[int] = (),
    most: int = 1 << 30,
) -> Found:
    """Find the photos of a part that end whatever looks at them.

    Args:
        attempt: called as attempt(**fixed, only=positions, progress=...): does these photos, writes nothing, and
            returns the image_ids of all of the part. With no positions it only returns those.
        known: positions to leave out. most: how many to look for.

    Raises: OSError if storage fails or memory is short: no photo is to blame for that, and none is blamed.
    """
    started = time.monotonic()
    witness = Witness(attempt, fixed, photo_seconds)
    try:
        image_ids = witness.image_ids()
        found: dict[int, Ended] = {}
        _search(witness.tried, [at for at in range(len(image_ids)) if at not in set(known)], found, most)
    finally:
        witness.close()
    by = {at: (image_ids[at], ended.reason, ended.detail) for at, ended in sorted(found.items())}
    return Found(by=by, seconds=time.monotonic() - started)


def _search(
    tried: Callable[[Sequence[int]], Ended | None], some: Sequence[int], found: dict[int, Ended], most: int
) -> None:
    """Put into `found` each of these photos that alone ends what tries it."""
    while some and len(found) < most and (ended := tried(some)) is not None:
        if len(some) == 1:
            found[some[0]] = ended
            return
        at = len(some) if ended.done is None else ended.done
        if at < len(some) and (alone := tried(some[at : at + 1])) is not None:
            found[some[at]] = alone
            some = some[at + 1 :]  # those before it have just been done
            continue
        # Alone it is harmless, or nobody told which it was: the damage may have been done earlier.
        middle = len(some) // 2
        _search(tried, some[:middle], found, most)
        some = some[middle:]


class Witness:
    """A process that tries photos; when it has died, another."""

    def __init__(self, attempt: Callable[..., Any], fixed: Mapping[str, Any], photo_seconds: float) -> None:
        self._work, self._photo_seconds = (attempt, dict(fixed), photo_seconds, current()), photo_seconds
        self._process: subprocess.Popen[bytes] | None = None

    def image_ids(self) -> list[str]:
        """Of all photos of the part, in their order. Raises: OSError if they cannot be told."""
        answer = self._asked([])
        if isinstance(answer, Ended):
            raise OSError(f"a part's photos could not be listed: {answer.detail}")
        return answer

    def tried(self, some: Sequence[int]) -> Ended | None:
        """How the process ended over these photos; None if it did not."""
        answer = self._asked(some)
        return answer if isinstance(answer, Ended) else None

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._answers.close()
            self._process = None

    def _asked(self, some: Sequence[int]) -> Ended | list[str]:
        process, done = self._started(), None
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(list(some)).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            return self._end(done)
        for line in self._answers:
            told = json.loads(line)
            if "tried" in told:
                return told["tried"]
            if "raised" in told:
                return Ended(reason=CRASHED, detail=told["raised"], done=done)
            if "stopped" in told:
                raise OSError(told["stopped"])
            done = told["done"]
        return self._end(done)

    def _started(self) -> subprocess.Popen[bytes]:
        from ray import cloudpickle

        if self._process is not None:
            return self._process
        read, write = os.pipe()
        path = os.pathsep.join(place or os.getcwd() for place in sys.path)
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "ray_jobs.runtime.parallel.witness", str(write)],
                pass_fds=[write],
                stdin=subprocess.PIPE,
                env=os.environ | {"PYTHONPATH": path},
            )
        finally:
            os.close(write)
        self._process, self._answers = process, os.fdopen(read, "rb")
        assert process.stdin is not None
        work = cloudpickle.dumps(self._work)  # type: ignore[attr-defined]
        process.stdin.write(LENGTH.pack(len(work)) + work)
        return process

    def _end(self, done: int | None) -> Ended:
        """Of the process, which has closed its end.

        Raises: OSError if the system killed it, as it does where memory is short.
        """
        assert self._process is not None
        code = self._process.wait()
        self.close()
        if code == -signal.SIGKILL:
            raise OSError("a process that tried photos was killed (SIGKILL), as for lack of memory")
        if code == -signal.SIGALRM:
            return Ended(reason=TIMED_OUT, detail=f"not done within {self._photo_seconds:g} s", done=done)
        how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return Ended(reason=CRASHED, detail=how, done=done)
