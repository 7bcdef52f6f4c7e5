"""The service's end of one process that looks at photos."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from retrieval.images.settings import PrepareConfig
from serve.photos.channel import Channel
from serve.photos.limits import Caps
from serve.photos.messages import Look, Looked, Unusable, kind_to_json, seen_from_parts

_MOST_KINDS = 16
# Keys, tokens and addresses of the service are no business of who decodes photos.
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR")


class Handle:
    """A process, busy with one photo at most. Used from one event loop."""

    def __init__(self, caps: Caps) -> None:
        """Starts it. It takes half a second until it is ready."""
        self._connection, theirs = socket.socketpair()
        self._connection.setblocking(False)
        self._channel: Channel | None = None
        self._rested = 0.0
        self._kinds: dict[tuple[PrepareConfig, bytes | None], int] = {}
        try:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "serve.photos.worker",
                    str(theirs.fileno()),
                    json.dumps(dataclasses.asdict(caps)),
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=_environment(),
            )
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def worn(self) -> bool:
        """Whether it has learnt so many ways of looking that a fresh one should take its place."""
        return len(self._kinds) >= _MOST_KINDS

    def knows(self, how: Look) -> bool:
        """Whether it was told of this way of looking."""
        return how.kind in self._kinds

    @property
    def worked(self) -> float:
        """Seconds of a core that it has used since its last answer; 0 once it is gone."""
        try:
            text = Path(f"/proc/{self.pid}/stat").read_text()
        except OSError:
            return 0.0
        user, system = text.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK") - self._rested

    async def ready(self) -> None:
        """Raises: Broken if it ends before it is."""
        self._channel = await Channel.over(self._connection)
        await self._channel.expect(lambda head, _: head["ready"])
        self._rest()

    def learn(self, how: Look) -> asyncio.Future[int]:
        """Have it make what this way of looking needs, once; its number. Raises, when awaited: Broken if it dies of
        it."""
        assert self._channel is not None, "it is ready"
        self._kinds[how.kind] = len(self._kinds)
        head = {"learn": kind_to_json(how.config), "network": how.network is not None}
        return self._channel.ask(head, [how.network or b""], self._learnt)

    def look(self, photo: bytes, how: Look, seconds: float) -> asyncio.Future[Looked | Unusable]:
        """What is seen, once it is. Raises, when awaited: Broken if it dies, or answers what is no answer."""
        assert self._channel is not None, "it is ready"
        if not self.knows(how):
            self.learn(how)
        head = {"kind": self._kinds[how.kind], "faces": how.faces, "box": how.box, "seconds": seconds}
        return self._channel.ask(head, [photo], self._seen)

    def _learnt(self, head: dict[str, Any], _: bytes) -> int:
        self._rest()
        return head["learnt"]

    def _rest(self) -> None:
        """What it has used until now is no photo's fault."""
        self._rested += self.worked

    def _seen(self, head: dict[str, Any], body: bytes) -> Looked | Unusable:
        seen = seen_from_parts(head, body)
        self._rested = float(head["worked"])
        return seen

    def kill(self) -> None:
        """At once, whatever it does; also where it is stopped."""
        self._process.kill()
        if self._channel is None:
            self._connection.close()
        else:
            self._channel.close()

    async def ended(self) -> str:
        """How it ended, once it has, in words; a zombie is nobody's then."""
        code = await asyncio.to_thread(self._process.wait)
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    # One core, one arena. What a large photo took goes back to the system when it is done; not what a usual one took,
    # since fetching that anew for every photo costs a millisecond.
    quiet = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    freed = {"MALLOC_MMAP_THRESHOLD_": str(8 << 20), "MALLOC_TRIM_THRESHOLD_": str(64 << 20)}
    return {**kept, **quiet, **freed, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
